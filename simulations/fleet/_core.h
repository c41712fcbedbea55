/* The simulation of a fleet's traffic, compiled: what crew.py, telling.py, links.py, tally.py, servers.py and agenda.py
 * do for every picture, to the last bit. They are the reference, and say what is done and why; tests hold this to them.
 *
 *     agenda ──> picture ──> Crew: choose, work, refine, code ──> Road ──> Station: the product's queue ──> served
 *                                   │                                                                    │
 *                                   └──────── the product's controller ──────── Tally <──────────────────┘
 *
 * Everything that a picture passes is a C struct; what seldom happens (rounds, roll-outs, outages, LoRa, day and night,
 * black-outs) is asked of the Python objects, which see the same structs by their attributes.
 *
 * Functions that may raise return 0, or -1 with an exception set. Times in s unless a name says ms.
 */
#ifndef HEADWATER_CORE_H
#define HEADWATER_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* ---------------------------------------------------------------- what all share (_core.c) */

/* Strings, made once. */
typedef struct {
    PyObject *choose, *refine, *observe, *send, *local, *whole, *skip, *mode, *groups, *action, *most_bytes;
    PyObject *answered, *follow, *after, *moment, *up, *down, *loss, *outcome, *retry_after_s;
    PyObject *waiting, *running, *age_ms, *time_s, *connected, *held_ms, *frames_unanswered, *bytes_unanswered;
    PyObject *oldest_ms, *silent_ms, *sent_bytes, *prepare_ms, *head_ms, *code_ms, *attempts, *round_trip_ms;
    PyObject *server_ms, *batch, *bytes_ahead, *exit_ms, *waited_ms, *confidence, *sent;
    PyObject *late, *expired, *skipped, *gain;
} Names;

extern Names names;
extern PyTypeObject *flight_type, *ticket_type, *road_type;
extern double normal[4096]; /* chance.NORMAL */

uint64_t draw(uint64_t key, int64_t number);
double share(uint64_t key, int64_t number);

/* Free an object and what it owns. */
void dealloc_with(PyObject *object, PyObject **owned[], size_t count);

PyObject *alloc(PyTypeObject *type);

/* Attributes and results as numbers; not a number stands for None. */
int double_of(PyObject *object, double *number); /* steals the reference */
int long_of(PyObject *object, long *number);     /* steals the reference; -1 for None */
int double_attribute(PyObject *object, const char *name, double *number);
int doubles_attribute(PyObject *object, const char *name, double **numbers, Py_ssize_t *count);

/* ---------------------------------------------------------------- agenda (_agenda.c) */

typedef int (*Do)(PyObject *owner, PyObject *what, double now_s);

typedef struct {
    double time_s;
    uint64_t number;
    Do act;
    PyObject *owner, *what;
} Event;

typedef struct {
    PyObject_HEAD
    double now_s;
    long long events;
    uint64_t number;
    Event *heap;
    size_t count, room;
} Agenda;

extern PyType_Spec agenda_spec;

int agenda_at(Agenda *agenda, double time_s, Do act, PyObject *owner, PyObject *what);

/* ---------------------------------------------------------------- links (_roads.c) */

typedef struct {
    PyObject_HEAD
    double shift_s, up_s, down_s, last_s;
    PyObject *bulk_up, *bulk_down; /* links.Bulk or None */
} Line;

typedef struct {
    PyObject_HEAD
    double send_s, receive_s, tail_s, up_bytes, down_bytes;
    long long wakes;
} Used;

/* One direction of a trace: ends and bytes have one more than there are segments. */
typedef struct {
    Py_ssize_t segments;
    double *ends, *bytes, *rates, byte_s;
} Carrier;

typedef struct {
    PyObject_HEAD
    Used *used;
    Carrier up, down;
    double awake_s, wake_s, beat_s, beat_bytes, up_delay_s, down_delay_s, frame_bytes, answer_bytes;
    int gaps; /* there are black-outs: Python reckons */
} Road;

extern PyType_Spec line_spec, used_spec, road_spec;

int link_up(PyObject *link, Line *line, double now_s, long size, double *there_s);
int link_down(PyObject *link, Line *line, double now_s, double *back_s);
int link_loss(PyObject *link, long size, double *lost);

/* ---------------------------------------------------------------- counts (_tally.c) */

typedef struct {
    long long frames, missed, sent, server;
    double frame_bytes, latency_ms;
    int touched;
} Hour;

typedef struct {
    long long frames, batches, most_waiting, refused, expired;
    double busy_s, wait_s;
    int touched;
} ServerHour;

typedef struct {
    PyObject_HEAD
    PyObject *outcome;
    Used *used;
    double deadline_ms;
    long long frames, server, exit, whole, unanswered, skipped, dropped, sure, stepped_in, missed, sent, refused, lost;
    double right, frame_bytes;
    double prepare_s, head_s, exit_s, code_s, whole_s, train_s, stages[9];
    long long *modes, *latency, *server_latency;
    size_t mode_count, latency_count, server_latency_count;
    Hour *hours;
    size_t hour_count;
} Tally;

typedef struct Flight Flight;

extern PyType_Spec tally_spec;

int tally_taken(Tally *tally, double taken_s);
int tally_sent(Tally *tally, double taken_s, long mode, long size);
int tally_here(Tally *tally, double taken_s, double answered_s, double right);
int tally_missed(Tally *tally, double taken_s);
int tally_served(Tally *tally, const Flight *flight, double right, double started_s, double done_s);
int tally_came(Tally *tally, double latency_ms);

/* So that `at` is an index; what is new is zero. */
int grow(void **table, size_t *count, size_t at, size_t size);

/* ---------------------------------------------------------------- servers (_stations.c) */

/* batch_queue.Ticket, of which there is one a frame. */
typedef struct {
    PyObject_HEAD
    long group, priority, depth;
    double deadline, arrived, started;
    PyObject *work, *settle, *state, *result;
} Ticket;

typedef struct {
    PyObject_HEAD
    PyObject *name, *outages, *outcome;
    Agenda *agenda;
    double handling_s, batch_s, frame_s, spread, wake_s;
    uint64_t key;
    int64_t batches;
    PyObject *queue, *push, *take, *finish, *expire, *wake_at; /* the product's, and its methods */
    PyObject *full, *fresh, *settle;                            /* its error, a new ticket's state, who is told */
    PyObject *running;                                          /* batches */
    ServerHour *hours;
    size_t hour_count;
} Station;

extern PyType_Spec ticket_spec, station_spec;

int station_arrive(PyObject *station, PyObject *flight, double now_s);

/* ---------------------------------------------------------------- devices (_members.c) */

typedef struct Crew Crew;

typedef struct {
    PyObject_HEAD
    uint64_t key;
    int64_t number;
    double base_s, taken_s, richness, ease, free_s, held_s, since_s, pace;
    long burst_left;
    char uses_new, waits;
    double waiting_s;
    uint64_t waiting_luck;
    Flight *first, *last; /* its frames on their way, linked by `next` */
    long flights;
    PyObject *controller, *link, *release;
    Line *line;
    Station *station;
} Device;

struct Flight {
    PyObject_HEAD
    Crew *crew;
    Device *device;
    Flight *next;
    double taken_s, due_s, back_s, server_ms, arrived_s, started_s, sent_s;
    double prepare_ms, head_ms, exit_ms, code_ms, work_s, unsure_right, confidence; /* NAN: none */
    uint64_t luck;
    long mode, size, ahead, attempts, batch, groups; /* groups: -1 for all */
    char told, gone;
    PyObject *decision; /* while the device works */
};

extern PyType_Spec device_spec, flight_spec;

Flight *flight_new(Crew *crew, Device *device, double taken_s, double due_s);
void device_add(Device *device, Flight *flight);

/* ---------------------------------------------------------------- crews */

typedef enum { SEND, LOCAL, WHOLE, SKIP } Action;

/* A controller's decision. */
typedef struct {
    PyObject *object;
    Action action;
    long mode, groups, most_bytes; /* -1: None */
} Said;

/* What an observation says. */
typedef struct {
    long mode, size, attempts, batch, ahead;
    double prepare_ms, head_ms, code_ms, exit_ms, round_trip_ms, server_ms, time_s, waited_ms, confidence;
    int sent;
    PyObject *outcome;
} Told;

/* model.Model, by mode; cuts are [mode][groups]. */
typedef struct {
    Py_ssize_t modes, most_groups;
    double *head_ms, *mean_bytes, *sigma, *below, *right, *cut_bytes, *cut_right;
    int local; /* there is an exit */
    double *sure_above, *sure_right, *unsure_right;
    double whole_right, give_up_s, prepare_ms, exit_ms, code_ms, whole_ms, spread;
} Model;

struct Crew {
    PyObject_HEAD
    PyObject *name, *model, *clock, *routes, *situation, *observation, *situation_fields, *observation_fields;
    Agenda *agenda;
    Tally *tally;
    Model of;
    double end_s, content_s, interval_s, slow_share, slow_times;
    long window, burst;
    int simple, outages;
    double rho, rest, gap_s; /* of the last picture's gap, as most are alike */
    int crowded;             /* the situation at hand has frames on their way, or is held */
    Told told;               /* what the observation says now */
};

extern PyType_Spec crew_spec;

/* _crews.c: pictures and the work on the device; _sending.c: over the link and back; _telling.c: the controller. */
int take_model(Model *of, PyObject *model);
void forget_model(Model *of);
int crew_send(Crew *crew, Device *device, Flight *flight, const Said *said, double now_s);
int crew_served(Flight *flight, double started_s, double now_s);
int crew_expired(Flight *flight, double now_s);
int crew_refused(Flight *flight, double now_s, double retry_after_s);
int crew_broken(Flight *flight, double now_s);
int ask(Crew *crew, Device *device, double taken_s, double now_s, Said *said);
int ask_again(Crew *crew, Device *device, const Flight *flight, double now_s, Said *said);
int read_decision(PyObject *object, Said *said);
int tell_here(Crew *crew, Device *device, long mode, PyObject *fate, double now_s, const Flight *flight);
int catch_up(Crew *crew, Device *device, double now_s);

#endif
