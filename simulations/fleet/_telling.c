/* What a simulated device's controller is asked with and told: telling.Teller.
 *
 * Situation and observation are two Python objects for all devices of a crew, whose fields are written where they have
 * changed. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- fields */

/* Steals the value. */
static int set(PyObject *fields, PyObject *name, PyObject *value) {
    int done = value == NULL ? -1 : PyDict_SetItem(fields, name, value);
    Py_XDECREF(value);
    return done;
}

static int set_double(PyObject *fields, PyObject *name, double *was, double is) {
    if (*was == is || (isnan(*was) && isnan(is))) return 0;
    *was = is;
    return set(fields, name, isnan(is) ? Py_NewRef(Py_None) : PyFloat_FromDouble(is));
}

static int set_long(PyObject *fields, PyObject *name, long *was, long is) {
    if (*was == is) return 0;
    *was = is;
    return set(fields, name, PyLong_FromLong(is));
}

/* ---------------------------------------------------------------- asking */

static int tell_queue(PyObject *fields, const Device *device, double now_s) {
    long bytes = 0;
    double oldest_ms = 0.0;
    for (const Flight *flight = device->first; flight != NULL; flight = flight->next) bytes += flight->size;
    if (device->flights) oldest_ms = (now_s > device->first->sent_s ? now_s - device->first->sent_s : 0.0) * 1e3;
    double held_ms = device->held_s > now_s ? (device->held_s - now_s) * 1e3 : 0.0;
    return set(fields, names.held_ms, PyFloat_FromDouble(held_ms)) < 0 ||
                   set(fields, names.frames_unanswered, PyLong_FromLong(device->flights)) < 0 ||
                   set(fields, names.bytes_unanswered, PyLong_FromLong(bytes)) < 0 ||
                   set(fields, names.oldest_ms, PyFloat_FromDouble(oldest_ms)) < 0 ||
                   set(fields, names.silent_ms, PyFloat_FromDouble(oldest_ms)) < 0
               ? -1
               : 0;
}

static int tell_connected(Crew *crew, Device *device, double now_s) {
    PyObject *now = PyFloat_FromDouble(now_s);
    PyObject *followed =
        now == NULL ? NULL : PyObject_CallMethodObjArgs(crew->routes, names.follow, (PyObject *)device, now, NULL);
    Py_XDECREF(now);
    Py_XDECREF(followed);
    if (followed == NULL) return -1;
    return set(crew->situation_fields, names.connected, PyBool_FromLong(now_s >= device->since_s));
}

static int tell_situation(Crew *crew, Device *device, double taken_s, double now_s) {
    PyObject *fields = crew->situation_fields;
    if (set(fields, names.age_ms, PyFloat_FromDouble((now_s - taken_s) * 1e3)) < 0) return -1;
    if (set(fields, names.time_s, PyFloat_FromDouble(now_s)) < 0) return -1;
    if (crew->outages && tell_connected(crew, device, now_s) < 0) return -1;
    int crowded = device->flights || device->held_s > now_s, was = crew->crowded;
    crew->crowded = crowded;
    return crowded || was ? tell_queue(fields, device, now_s) : 0;
}

static int action_of(PyObject *word, Action *action) {
    PyObject *const words[] = {names.send, names.local, names.whole, names.skip};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 4; i++) {
            if (pass ? PyUnicode_Compare(word, words[i]) != 0 : word != words[i]) continue;
            *action = (Action)i;
            return 0;
        }
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "a controller decided to %R", word);
    return -1;
}

/* Takes the decision over; the caller lets go of said->object if it has found no error. */
int read_decision(PyObject *object, Said *said) {
    if (object == NULL) return -1;
    PyObject *action = PyObject_GetAttr(object, names.action);
    int done = action == NULL || action_of(action, &said->action) < 0 ||
                       long_of(PyObject_GetAttr(object, names.mode), &said->mode) < 0 ||
                       long_of(PyObject_GetAttr(object, names.groups), &said->groups) < 0 ||
                       long_of(PyObject_GetAttr(object, names.most_bytes), &said->most_bytes) < 0
                   ? -1
                   : 0;
    Py_XDECREF(action);
    said->object = object;
    if (done == 0) return 0;
    Py_DECREF(object);
    return -1;
}

static int known_mode(const Crew *crew, Said *said) {
    if (said->mode >= 0 && said->mode < crew->of.modes) return 0;
    PyErr_Format(PyExc_IndexError, "a controller chose mode %ld of %zd", said->mode, crew->of.modes);
    Py_DECREF(said->object);
    return -1;
}

int ask(Crew *crew, Device *device, double taken_s, double now_s, Said *said) {
    if (tell_situation(crew, device, taken_s, now_s) < 0) return -1;
    PyObject *decision = PyObject_CallMethodObjArgs(device->controller, names.choose, crew->situation, NULL);
    return read_decision(decision, said) < 0 || known_mode(crew, said) < 0 ? -1 : 0;
}

/* After the head; `said` is what was said before. The caller lets go of said->object, as after `ask`. */
int ask_again(Crew *crew, Device *device, const Flight *flight, double now_s, Said *said) {
    if (tell_situation(crew, device, flight->taken_s, now_s) < 0) return -1;
    PyObject *sure = isnan(flight->confidence) ? Py_NewRef(Py_None) : PyFloat_FromDouble(flight->confidence);
    if (sure == NULL) return -1;
    PyObject *decision = PyObject_CallMethodObjArgs(device->controller, names.refine, said->object, crew->situation,
                                                    sure, NULL);
    Py_DECREF(sure);
    if (decision == said->object) return 0; /* the same: it need not be read again */
    return read_decision(decision, said) < 0 || known_mode(crew, said) < 0 ? -1 : 0;
}

/* ---------------------------------------------------------------- telling */

static int observe(Crew *crew, Device *device) {
    PyObject *done = PyObject_CallMethodObjArgs(device->controller, names.observe, crew->observation, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int write_times(PyObject *fields, Told *was, const Told *is) {
    return set_double(fields, names.prepare_ms, &was->prepare_ms, is->prepare_ms) < 0 ||
                   set_double(fields, names.head_ms, &was->head_ms, is->head_ms) < 0 ||
                   set_double(fields, names.code_ms, &was->code_ms, is->code_ms) < 0 ||
                   set_double(fields, names.exit_ms, &was->exit_ms, is->exit_ms) < 0 ||
                   set_double(fields, names.round_trip_ms, &was->round_trip_ms, is->round_trip_ms) < 0 ||
                   set_double(fields, names.server_ms, &was->server_ms, is->server_ms) < 0 ||
                   set_double(fields, names.time_s, &was->time_s, is->time_s) < 0 ||
                   set_double(fields, names.waited_ms, &was->waited_ms, is->waited_ms) < 0 ||
                   set_double(fields, names.confidence, &was->confidence, is->confidence) < 0
               ? -1
               : 0;
}

static int write_counts(PyObject *fields, Told *was, const Told *is) {
    if (was->sent != is->sent && set(fields, names.sent, PyBool_FromLong(is->sent)) < 0) return -1;
    if (was->outcome != is->outcome && PyDict_SetItem(fields, names.outcome, is->outcome) < 0) return -1;
    was->sent = is->sent;
    was->outcome = is->outcome;
    return set_long(fields, names.mode, &was->mode, is->mode) < 0 ||
                   set_long(fields, names.sent_bytes, &was->size, is->size) < 0 ||
                   set_long(fields, names.attempts, &was->attempts, is->attempts) < 0 ||
                   set_long(fields, names.batch, &was->batch, is->batch) < 0 ||
                   set_long(fields, names.bytes_ahead, &was->ahead, is->ahead) < 0
               ? -1
               : 0;
}

static int tell(Crew *crew, Device *device, const Told *told) {
    PyObject *fields = crew->observation_fields;
    if (write_times(fields, &crew->told, told) < 0 || write_counts(fields, &crew->told, told) < 0) return -1;
    return observe(crew, device);
}

int tell_here(Crew *crew, Device *device, long mode, PyObject *fate, double now_s, const Flight *flight) {
    Told told = {.mode = mode, .outcome = fate, .time_s = now_s, .round_trip_ms = NAN, .confidence = NAN};
    if (flight != NULL) {
        told.prepare_ms = flight->prepare_ms;
        told.head_ms = flight->head_ms;
        told.exit_ms = flight->exit_ms;
        told.confidence = flight->confidence;
    }
    return tell(crew, device, &told);
}

/* What every observation of a frame says. */
static Told of_frame(const Flight *flight, PyObject *fate, double time_s) {
    return (Told){.mode = flight->mode, .size = flight->size, .attempts = flight->attempts, .batch = flight->batch,
                  .ahead = flight->ahead, .server_ms = flight->server_ms, .sent = 1, .outcome = fate,
                  .time_s = time_s, .round_trip_ms = NAN, .confidence = NAN};
}

static void add_work(Told *told, const Flight *flight) {
    told->prepare_ms = flight->prepare_ms;
    told->head_ms = flight->head_ms;
    told->exit_ms = flight->exit_ms;
    told->code_ms = flight->code_ms;
    told->confidence = flight->confidence;
}

static int tell_answered(Crew *crew, Device *device, Flight *flight) {
    Told told = of_frame(flight, names.answered, flight->back_s);
    flight->told = 1;
    add_work(&told, flight);
    told.round_trip_ms = (flight->back_s - flight->sent_s) * 1e3;
    return tell(crew, device, &told);
}

static int tell_given_up(Crew *crew, Device *device, Flight *flight, double time_s) {
    Told told = of_frame(flight, crew->of.local ? names.local : names.expired, time_s);
    flight->told = 1;
    add_work(&told, flight);
    told.server_ms = 0.0;
    told.waited_ms = (time_s > flight->sent_s ? time_s - flight->sent_s : 0.0) * 1e3;
    return tell(crew, device, &told);
}

static int tell_late(Crew *crew, Device *device, const Flight *flight) {
    Told told = of_frame(flight, names.late, flight->back_s);
    told.round_trip_ms = (flight->back_s - flight->sent_s) * 1e3;
    return tell(crew, device, &told);
}

/* ---------------------------------------------------------------- catching up */

typedef struct {
    double time_s;
    Flight *flight;
} News;

static void add_news(News *news, size_t *count, double time_s, Flight *flight) {
    size_t at = (*count)++;
    for (; at > 0 && news[at - 1].time_s > time_s; at--) news[at] = news[at - 1];
    news[at] = (News){time_s, flight};
}

/* What is known by now, by its time; of the same time what a frame's end is comes before any late answer. */
static size_t gather(News *news, const Device *device, double now_s) {
    size_t count = 0;
    for (Flight *flight = device->first; flight != NULL; flight = flight->next) {
        double until_s = flight->due_s > flight->sent_s ? flight->due_s : flight->sent_s;
        double first_s = flight->back_s <= flight->due_s ? flight->back_s : until_s;
        if (!flight->told && first_s <= now_s) add_news(news, &count, first_s, flight);
    }
    for (Flight *flight = device->first; flight != NULL; flight = flight->next)
        if (flight->due_s < flight->back_s && flight->back_s <= now_s) add_news(news, &count, flight->back_s, flight);
    return count;
}

static int tell_news(Crew *crew, Device *device, const News *news, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Flight *flight = news[i].flight;
        int told = flight->back_s <= flight->due_s ? tell_answered(crew, device, flight)
                   : !flight->told                 ? tell_given_up(crew, device, flight, news[i].time_s)
                                                   : tell_late(crew, device, flight);
        if (told < 0) return -1;
    }
    return 0;
}

static void forget_landed(Device *device, double now_s) {
    Flight **link = &device->first;
    device->last = NULL;
    while (*link != NULL) {
        Flight *flight = *link;
        if (flight->back_s > now_s && !(flight->gone && flight->told)) {
            device->last = flight;
            link = &flight->next;
            continue;
        }
        *link = flight->next;
        flight->next = NULL;
        device->flights--;
        Py_DECREF((PyObject *)flight);
    }
}

int catch_up(Crew *crew, Device *device, double now_s) {
    News few[16], *news = few;
    size_t most = 2 * (size_t)device->flights;
    if (most > 16 && (news = malloc(most * sizeof(News))) == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    int done = tell_news(crew, device, news, gather(news, device, now_s));
    if (news != few) free(news);
    if (done == 0) forget_landed(device, now_s);
    return done;
}
