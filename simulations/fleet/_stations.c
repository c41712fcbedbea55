/* Servers: servers.Station, around the product's own queue (server/batch_queue.py). */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <structmember.h>

#define LEAST_LUCK 0.2

static int wake(PyObject *owner, PyObject *what, double now_s);
static int finished(PyObject *owner, PyObject *what, double now_s);

static ServerHour *hour_of(Station *station, double now_s) {
    size_t at = (size_t)(now_s / 3600);
    if (grow((void **)&station->hours, &station->hour_count, at, sizeof(ServerHour)) < 0) return NULL;
    station->hours[at].touched = 1;
    return station->hours + at;
}

/* ---------------------------------------------------------------- the queue */

static PyObject *call_at(PyObject *method, PyObject *what, double now_s) {
    PyObject *now = PyFloat_FromDouble(now_s), *done = NULL;
    if (now != NULL && what != NULL) done = PyObject_CallFunctionObjArgs(method, what, now, NULL);
    else if (now != NULL) done = PyObject_CallFunctionObjArgs(method, now, NULL);
    Py_XDECREF(now);
    return done;
}

static int count_of(const Station *station, PyObject *name, long *count) {
    return long_of(PyObject_GetAttr(station->queue, name), count);
}

/* The queue's next batch, NULL where none is due. */
static int take_batch(const Station *station, double now_s, PyObject **batch) {
    *batch = call_at(station->take, NULL, now_s);
    if (*batch == NULL) return -1;
    if (*batch == Py_None) Py_CLEAR(*batch);
    return 0;
}

static Flight *flight_of(PyObject *batch, Py_ssize_t at) { return (Flight *)((Ticket *)PyList_GetItem(batch, at))->work; }

static Ticket *ticket_new(const Station *station, Flight *flight, double deadline_s) {
    Ticket *ticket = (Ticket *)alloc(ticket_type);
    if (ticket == NULL) return NULL;
    ticket->deadline = deadline_s;
    ticket->work = Py_NewRef((PyObject *)flight);
    ticket->settle = Py_NewRef(station->settle);
    ticket->state = Py_NewRef(station->fresh);
    ticket->result = Py_NewRef(Py_None);
    return ticket;
}

/* ---------------------------------------------------------------- batches */

static double took_s(const Station *station, Py_ssize_t frames) {
    double luck = 1 + station->spread * normal[draw(station->key, station->batches) & 4095];
    return (station->batch_s + station->frame_s * (double)frames) * (luck < LEAST_LUCK ? LEAST_LUCK : luck);
}

static int count_batch(Station *station, PyObject *batch, double busy_s, double now_s) {
    ServerHour *hour = hour_of(station, now_s);
    Py_ssize_t frames = PyList_Size(batch);
    long waiting;
    if (hour == NULL || count_of(station, names.waiting, &waiting) < 0) return -1;
    hour->batches++;
    hour->frames += frames;
    hour->busy_s += busy_s;
    for (Py_ssize_t i = 0; i < frames; i++) {
        Flight *flight = flight_of(batch, i);
        flight->started_s = now_s;
        hour->wait_s += now_s - flight->arrived_s;
    }
    if (waiting + frames > hour->most_waiting) hour->most_waiting = waiting + frames;
    return 0;
}

static int start(Station *station, PyObject *batch, double now_s) {
    station->batches++;
    double busy_s = took_s(station, PyList_Size(batch));
    if (count_batch(station, batch, busy_s, now_s) < 0 || PyList_Append(station->running, batch) < 0) return -1;
    return agenda_at(station->agenda, now_s + busy_s, finished, (PyObject *)station, batch);
}

static int expire(Station *station, double now_s) {
    PyObject *tickets = call_at(station->expire, NULL, now_s);
    Py_ssize_t count = tickets == NULL ? -1 : PyList_Size(tickets);
    int done = count < 0 ? -1 : 0;
    for (Py_ssize_t i = 0; done == 0 && i < count; i++) {
        ServerHour *hour = hour_of(station, now_s);
        if (hour != NULL) hour->expired++;
        done = hour == NULL ? -1 : crew_expired(flight_of(tickets, i), now_s);
    }
    Py_XDECREF(tickets);
    return done;
}

/* See to it that the queue is looked at when it has to be. */
static int arm(Station *station) {
    double at_s;
    if (double_of(PyObject_CallFunctionObjArgs(station->wake_at, NULL), &at_s) < 0) return -1;
    if (!(at_s < station->wake_s)) return 0;
    station->wake_s = at_s;
    return agenda_at(station->agenda, at_s, wake, (PyObject *)station, Py_None);
}

static int pump(Station *station, double now_s) {
    long waiting;
    if (expire(station, now_s) < 0) return -1;
    while (1) {
        PyObject *batch = NULL;
        if (count_of(station, names.waiting, &waiting) < 0) return -1;
        if (waiting && take_batch(station, now_s, &batch) < 0) return -1;
        if (batch == NULL) break;
        int done = start(station, batch, now_s);
        Py_DECREF(batch);
        if (done < 0) return -1;
    }
    return waiting ? arm(station) : 0;
}

static int wake(PyObject *owner, PyObject *what, double now_s) {
    (void)what;
    Station *station = (Station *)owner;
    if (now_s != station->wake_s) return 0;
    station->wake_s = INFINITY;
    return pump(station, now_s);
}

/* ---------------------------------------------------------------- what comes in */

/* The queue was full, as the exception says that is set. */
static int refuse(Station *station, Flight *flight, double now_s) {
    double retry_after_s = 0.0;
    if (!PyErr_ExceptionMatches(station->full)) return -1;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    int done = double_of(PyObject_GetAttr(error, names.retry_after_s), &retry_after_s);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    ServerHour *hour = hour_of(station, now_s);
    if (done < 0 || hour == NULL) return -1;
    hour->refused++;
    return crew_refused(flight, now_s, retry_after_s);
}

static int is_up(const Station *station, double time_s) {
    for (Py_ssize_t i = 0; i < PyList_Size(station->outages); i++) {
        double from_s, to_s;
        if (!PyArg_ParseTuple(PyList_GetItem(station->outages, i), "dd", &from_s, &to_s)) return -1;
        if (from_s <= time_s && time_s < to_s) return 0;
    }
    return 1;
}

/* A frame is in the queue. */
static int pushed(Station *station, const Flight *flight, double now_s) {
    long waiting, running;
    PyObject *batch;
    if (count_of(station, names.waiting, &waiting) < 0 || count_of(station, names.running, &running) < 0) return -1;
    if (waiting != 1 || running || !(flight->due_s > now_s)) return pump(station, now_s);
    if (take_batch(station, now_s, &batch) < 0) return -1; /* as a pump would, for most frames */
    int done = batch == NULL ? 0 : start(station, batch, now_s);
    Py_XDECREF(batch);
    return done;
}

int station_arrive(PyObject *owner, PyObject *what, double now_s) {
    Station *station = (Station *)owner;
    Flight *flight = (Flight *)what;
    int up = is_up(station, now_s);
    if (up <= 0) return up < 0 ? -1 : crew_broken(flight, now_s);
    flight->arrived_s = now_s;
    double left_s = flight->due_s - flight->sent_s;
    Ticket *ticket = ticket_new(station, flight, now_s + (left_s < 1e-3 ? 1e-3 : left_s));
    PyObject *done = ticket == NULL ? NULL : call_at(station->push, (PyObject *)ticket, now_s);
    Py_XDECREF((PyObject *)ticket);
    Py_XDECREF(done);
    if (done == NULL) return refuse(station, flight, now_s);
    return pushed(station, flight, now_s);
}

/* ---------------------------------------------------------------- what goes out */

/* Take a batch off those that run; whether it was there. */
static int take_off(const Station *station, PyObject *batch) {
    for (Py_ssize_t i = 0; i < PyList_Size(station->running); i++)
        if (PyList_GetItem(station->running, i) == batch)
            return PyList_SetSlice(station->running, i, i + 1, NULL) < 0 ? -1 : 1;
    return 0;
}

static int settle_batch(const Station *station, PyObject *batch, double now_s, PyObject *results) {
    PyObject *now = PyFloat_FromDouble(now_s);
    PyObject *done = now == NULL ? NULL : PyObject_CallFunctionObjArgs(station->finish, batch, now, results, NULL);
    Py_XDECREF(now);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *no_results(Py_ssize_t count) {
    PyObject *results = PyList_New(count);
    for (Py_ssize_t i = 0; results != NULL && i < count; i++) PyList_SetItem(results, i, Py_NewRef(Py_None));
    return results;
}

static int finished(PyObject *owner, PyObject *batch, double now_s) {
    Station *station = (Station *)owner;
    long waiting;
    int ran = take_off(station, batch);
    if (ran <= 0) return ran; /* 0: the server went down meanwhile */
    Py_ssize_t frames = PyList_Size(batch);
    PyObject *results = no_results(frames);
    int done = results == NULL ? -1 : settle_batch(station, batch, now_s, results);
    Py_XDECREF(results);
    if (done < 0 || count_of(station, names.waiting, &waiting) < 0) return -1;
    if (waiting && pump(station, now_s) < 0) return -1;
    for (Py_ssize_t i = 0; i < frames; i++) {
        Flight *flight = flight_of(batch, i);
        flight->batch = (long)frames;
        if (crew_served(flight, flight->started_s, now_s) < 0) return -1;
    }
    return 0;
}

/* ---------------------------------------------------------------- going down */

static int break_all(PyObject *batches, double now_s) {
    for (Py_ssize_t i = 0; i < PyList_Size(batches); i++) {
        PyObject *batch = PyList_GetItem(batches, i);
        for (Py_ssize_t at = 0; at < PyList_Size(batch); at++)
            if (crew_broken(flight_of(batch, at), now_s) < 0) return -1;
    }
    return 0;
}

/* Lose all that waits and runs. */
static int fail(PyObject *owner, PyObject *what, double now_s) {
    (void)what;
    Station *station = (Station *)owner;
    PyObject *lost = station->running;
    long waiting;
    if ((station->running = PyList_New(0)) == NULL) return -1;
    int done = 0;
    for (Py_ssize_t i = 0; done == 0 && i < PyList_Size(lost); i++)
        done = settle_batch(station, PyList_GetItem(lost, i), now_s, Py_None);
    while (done == 0 && (done = count_of(station, names.waiting, &waiting)) == 0 && waiting) {
        PyObject *batch = NULL;
        done = take_batch(station, now_s, &batch) < 0 || batch == NULL || PyList_Append(lost, batch) < 0 ||
                       settle_batch(station, batch, now_s, Py_None) < 0
                   ? -1
                   : 0;
        Py_XDECREF(batch);
    }
    if (done == 0) done = break_all(lost, now_s);
    Py_DECREF(lost);
    return done;
}

/* ---------------------------------------------------------------- what Python sees */

static int arm_outages(Station *station) {
    for (Py_ssize_t i = 0; i < PyList_Size(station->outages); i++) {
        double from_s, to_s;
        if (!PyArg_ParseTuple(PyList_GetItem(station->outages, i), "dd", &from_s, &to_s)) return -1;
        if (agenda_at(station->agenda, from_s, fail, (PyObject *)station, Py_None) < 0) return -1;
    }
    return 0;
}

static int take_queue(Station *station) {
    const char *methods[] = {"push", "take", "finish", "expire", "wake_at"};
    PyObject **to[] = {&station->push, &station->take, &station->finish, &station->expire, &station->wake_at};
    for (int i = 0; i < 5; i++)
        if ((*to[i] = PyObject_GetAttrString(station->queue, methods[i])) == NULL) return -1;
    return (station->running = PyList_New(0)) == NULL ? -1 : 0;
}

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    Station *station = (Station *)object;
    PyObject *agenda, *list = (PyObject *)&PyList_Type;
    unsigned long long key;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Station takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OO!OO(dddd)K(OOOO)", &station->name, list, &station->outages, &station->outcome,
                          &agenda, &station->handling_s, &station->batch_s, &station->frame_s, &station->spread, &key,
                          &station->queue, &station->full, &station->fresh, &station->settle))
        return -1;
    PyObject *kept[] = {station->name, station->outages, station->outcome, station->queue,
                        station->full, station->fresh,   station->settle};
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) Py_INCREF(kept[i]);
    station->agenda = (Agenda *)Py_NewRef(agenda);
    station->key = key;
    station->wake_s = INFINITY;
    return take_queue(station) < 0 ? -1 : arm_outages(station);
}

static PyObject *hours(PyObject *object, PyObject *unused) {
    (void)unused;
    const Station *station = (Station *)object;
    PyObject *rows = PyList_New(0);
    for (size_t i = 0; rows != NULL && i < station->hour_count; i++) {
        const ServerHour *hour = station->hours + i;
        if (!hour->touched) continue;
        PyObject *row = Py_BuildValue("(nLLddLLL)", (Py_ssize_t)i, hour->frames, hour->batches, hour->busy_s,
                                      hour->wait_s, hour->most_waiting, hour->refused, hour->expired);
        if (row == NULL || PyList_Append(rows, row) < 0) Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

static void dealloc(PyObject *object) {
    Station *of = (Station *)object;
    free(of->hours);
    dealloc_with(object,
                 (PyObject **[]){&of->name, &of->outages, &of->outcome, (PyObject **)&of->agenda, &of->queue,
                                 &of->push, &of->take, &of->finish, &of->expire, &of->wake_at, &of->full, &of->fresh,
                                 &of->settle, &of->running},
                 14);
}

static void dealloc_ticket(PyObject *object) {
    Ticket *of = (Ticket *)object;
    dealloc_with(object, (PyObject **[]){&of->work, &of->settle, &of->state, &of->result}, 4);
}

static PyMethodDef station_methods[] = {
    {"hours", hours, METH_NOARGS, "[(hour, and what outcome.ServerHour has of it), ...]"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef station_members[] = {
    {"name", T_OBJECT, offsetof(Station, name), READONLY, NULL},
    {"outages", T_OBJECT, offsetof(Station, outages), READONLY, NULL},
    {"outcome", T_OBJECT, offsetof(Station, outcome), READONLY, NULL},
    {"handling_s", T_DOUBLE, offsetof(Station, handling_s), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef ticket_members[] = {
    {"group", T_LONG, offsetof(Ticket, group), READONLY, NULL},
    {"work", T_OBJECT, offsetof(Ticket, work), READONLY, NULL},
    {"settle", T_OBJECT, offsetof(Ticket, settle), READONLY, NULL},
    {"priority", T_LONG, offsetof(Ticket, priority), READONLY, NULL},
    {"deadline", T_DOUBLE, offsetof(Ticket, deadline), READONLY, NULL},
    {"arrived", T_DOUBLE, offsetof(Ticket, arrived), 0, NULL},
    {"started", T_DOUBLE, offsetof(Ticket, started), 0, NULL},
    {"depth", T_LONG, offsetof(Ticket, depth), 0, NULL},
    {"state", T_OBJECT, offsetof(Ticket, state), 0, NULL},
    {"result", T_OBJECT, offsetof(Ticket, result), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot station_slots[] = {
    {Py_tp_doc, "See servers.Station."}, {Py_tp_init, init},               {Py_tp_dealloc, dealloc},
    {Py_tp_methods, station_methods},    {Py_tp_members, station_members}, {0, NULL},
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_doc, "See batch_queue.Ticket."},
    {Py_tp_dealloc, dealloc_ticket},
    {Py_tp_members, ticket_members},
    {0, NULL},
};

#define NAMED(name) "headwater.simulations.fleet._core." name
PyType_Spec station_spec = {NAMED("Station"), sizeof(Station), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                            station_slots};
PyType_Spec ticket_spec = {NAMED("Ticket"), sizeof(Ticket), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           ticket_slots};
