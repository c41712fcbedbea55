/* The inner arithmetic of the rule that keeps the deadline, as margin.py, line.py and ways.py have it.
 *
 * Those say what is reckoned and why; this does the same with the same operations in the same order, so that every
 * bit of a result is the same (it is compiled without contracting a * b + c). Python finds the numbers that a picture
 * begins with and says what is done in the end; what runs for each way to answer it, and for each error that is learnt,
 * is here.
 */
#ifndef HEADWATER_WAYS_H
#define HEADWATER_WAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* ---------------------------------------------------------------- margin */

#define MEMORY 64
#define BODY 0.9
#define STEP 0.2
#define FIRST_CORRECTION 0.3
#define LEAST_CORRECTION 0.02
#define MOST_CORRECTION 2.0

typedef struct {
    PyObject_HEAD
    double upper;
    double miss, hit, correction;
    double order[MEMORY], sorted[MEMORY]; /* the errors as they came, `oldest` being the next to go; and by size */
    int count, oldest, body;
} Margin;

extern PyType_Spec margin_spec;

/* Of an object that owns nothing. */
void dealloc_plain(PyObject *object);

/* A new one, by the module that the type of `owner` is of. */
Margin *margin_of(PyObject *owner, double level);

void margin_add(Margin *margin, double error);
double margin_chance(const Margin *margin, double error, double beyond);
double margin_quantile(const Margin *margin, double share);
double margin_noise(const Margin *margin);

/* ---------------------------------------------------------------- line */

#define FORGET 0.97
#define GUESS 0.4
#define GUESS_OFF 0.2
#define LEAST_NOISE 0.01
#define MOST_BASE 0.9
#define TOLD 0.9

/* line.Line */
typedef struct {
    double frames, sizes, times, squares, products; /* weighted sums */
    double guess_ms;                                /* not a number: none */
    double base_ms, byte_ms;
    char told;
} Slope;

void slope_begin(Slope *line, double guess_ms);
void slope_add(Slope *line, double size, double time_ms, double noise);
double slope_at(const Slope *line, double size);

/* ---------------------------------------------------------------- estimates */

#define LEAST_MS 1e-3
#define NEAR 1.25
#define FAR 4.0
#define FOLLOW 0.5
#define FOLLOW_SERVER 0.2
#define QUEUED 5
#define LASTING 0.8
#define STALE 1.005
#define UNDELAYED 1.1
#define DROP 10.0
#define FALLS 1.0
#define FRAMES 100.0
#define MOST_FRAMES 2000.0
#define DOUBTED 0.5

/* estimates.Odd */
typedef struct {
    double size, own_ms;
    int alone;
} Odd;

/* estimates.RoundTrip */
typedef struct {
    PyObject_HEAD
    Margin *margin;
    Slope line;
    double scale, usual_scale, server_ms, through_s, apart[QUEUED], apart_ms, least_ms, falls, frames;
    int apart_count, odds;
    Odd odd[2]; /* two of them begin anew */
    char known, odd_is_slow;
} RoundTrip;

#define RECENT 8
#define LEAST_RECENT 3
#define RECENT_S 1.0
#define RISE 1.005
#define FALL 0.5

/* What is estimated of a width; `near` is the number of the width that has run and stands for it. */
typedef struct {
    double width, macs, pace_ms, times, head_ms; /* pace_ms: not a number before it has run */
    size_t near;
} Pace;

/* estimates.DeviceEstimate */
typedef struct {
    PyObject_HEAD
    Margin *margin;
    double factor, least_factor, code_ms, prepare_ms, alone_ms; /* alone_ms: of the whole model, or not a number */
    double recent[RECENT], recent_s[RECENT];
    int recent_count;
    size_t widths, ran; /* narrowest first */
    Pace *pace;
    size_t *order; /* of those that have run */
} DeviceEstimate;

extern PyType_Spec trip_spec, device_spec;

void trip_answered(RoundTrip *trip, double wire_bytes, double foretold_bytes, int queued, double network_ms,
                   double server_ms, double time_s);
double trip_queue_ms(const RoundTrip *trip, double wire_bytes);
double trip_begun_ms(const RoundTrip *trip, double waiting_ms, double time_s);
double trip_expected_ms(const RoundTrip *trip, double size);
double trip_overdue(const RoundTrip *trip, double wire_bytes, double waiting_ms);
void device_ran(DeviceEstimate *device, size_t number, double prepare_ms, double head_ms, double time_s);
void device_coded(DeviceEstimate *device, double time_ms);

/* ---------------------------------------------------------------- ways */

#define HOPELESS 0.1
#define MOST_LOST 5.0
#define NOISE 0.002
#define STEADY 0.5

typedef enum { LOCAL, SEND, WHOLE, SKIP, ACTIONS } Action;

/* One frame that may be sent: options.Option. */
typedef struct {
    double bytes, accuracy;
    long mode, groups; /* groups: -1 for all */
    PyObject *object;
} Option;

/* A width: its number, its options from the smallest to the largest, and of the picture at hand what the local exit is
 * worth, not a number where it cannot answer, and what head and exit take. */
typedef struct {
    Py_ssize_t number;
    size_t count;
    Option *options;
    double local, head_ms;
} Width;

/* One way: ways.Way. */
typedef struct {
    Action action;
    const Option *option;
    double worth, chance;
    int sure;
    double compute_ms, bytes;
} Way;

/* What the link would be if it carried less: ways.Fear. */
typedef struct {
    double share, base_ms, byte_ms, interval_ms;
} Fear;

typedef struct {
    double left_ms, base_ms, byte_ms, ahead_ms, oldest_ms, steady_bytes, beyond;
    const Margin *margin; /* NULL: there is no room */
    Fear fear;
} Room;

typedef struct {
    double left_ms, wider_ms, prepare_ms, factor;
} Work;

typedef struct {
    double level, slack, near, affordable, each, doubt, other;
} Wanted;

typedef struct {
    double per_ms, per_frame, per_byte;
} Cost;

Fear trip_fear(const RoundTrip *trip, double ahead_bytes, double frames, double oldest_ms, double interval_ms);

/* What was done last. */
typedef struct {
    Action action; /* ACTIONS: nothing yet */
    long mode, groups;
} Key;

/* A table, and what was found of the picture at hand. */
typedef struct {
    size_t widths; /* widest first */
    Width *width;
    Way *ways; /* with room for all that there can be */
    size_t count;
} Table;

/* What ways.Ways weighs with. */
typedef struct {
    PyObject_HEAD
    PyObject *margin_type, *way_type, *actions[ACTIONS];
    Table table;
} Scales;

/* ---------------------------------------------------------------- the usual picture */

#define REASONS 102 /* in time by so many percent, from 0; and where there is no deadline */

typedef struct Decisions Decisions;

extern PyType_Spec decisions_spec, steady_spec;

/* controller.Situation; without a deadline or an interval these are infinite. */
typedef struct {
    double left_ms, interval_ms, held_ms, time_s, oldest_ms, whole_ms;
    long frames, bytes, max_groups, max_bytes;
    int connected, exit_available;
} Asked;

/* controller.Observation, of a frame that was answered. */
typedef struct {
    long mode, size, attempts, ahead;
    double prepare_ms, head_ms, exit_ms, code_ms, round_trip_ms, server_ms, time_s;
} Seen;

int reading_prepare(void);
int read_situation(PyObject *situation, Asked *asked);
int read_observation(PyObject *observation, size_t modes, Seen *seen);

/* `chance`: not a number where there is no deadline. */
PyObject *decision_to_send(Decisions *of, const Option *option, double chance);
PyObject *decision_with_most(Decisions *of, const Option *option, PyObject *decision, double most_bytes);

/* A number, or -1 for None; 0 with an exception set. */
int long_of(PyObject *object, long *number);
int take_kept(const Scales *scales, PyObject *object, Key *kept);

double weigh(Table *table, const Way *whole, const Work *work, const Room *room, const Wanted *wanted);
const Way *worthiest(const Table *table, const Key *kept);
const Way *cheapest(const Table *table, double enough, const Cost *cost);
const Way *likeliest(const Table *table, double within);

#endif
