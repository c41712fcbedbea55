/* What a frame takes to the server and back: estimates.RoundTrip. */
#include "_ways.h"

#include <math.h>
#include <string.h>
#include <structmember.h>

static double most(double one, double other) { return other > one ? other : one; }
static double least(double one, double other) { return other < one ? other : one; }

static double steady_scale(const RoundTrip *trip) { return least(trip->scale, trip->usual_scale); }

/* ---------------------------------------------------------------- learning */

/* Time a byte that frames of a queue were through after one another: the middle one of the last ones. */
static void keep_apart(RoundTrip *trip, double byte_ms) {
    double sorted[QUEUED];
    if (trip->apart_count == QUEUED) memmove(trip->apart, trip->apart + 1, (QUEUED - 1) * sizeof(double));
    else trip->apart_count++;
    trip->apart[trip->apart_count - 1] = byte_ms;
    for (int i = 0, at; i < trip->apart_count; i++) {
        for (at = i; at > 0 && trip->apart[i] < sorted[at - 1]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = trip->apart[i];
    }
    trip->apart_ms = sorted[trip->apart_count / 2];
}

static double lasting_ms(const RoundTrip *trip) {
    if (!trip->line.told) return GUESS * trip->least_ms;
    return least(trip->line.base_ms * least(trip->scale, 1.0), LASTING * trip->least_ms);
}

static void begin_anew(RoundTrip *trip, const Odd *frames, int count) {
    const Odd last = frames[count - 1];
    slope_begin(&trip->line, lasting_ms(trip));
    for (int i = 0; i < count; i++)
        slope_add(&trip->line, frames[i].size, frames[i].own_ms, margin_noise(trip->margin));
    trip->scale = trip->usual_scale = last.own_ms / slope_at(&trip->line, last.size);
    trip->odds = 0;
}

/* Of the odd frames those that were measured, or else all. */
static void begin_anew_with_odd(RoundTrip *trip) {
    Odd alone[2];
    int count = 0;
    for (int i = 0; i < trip->odds; i++)
        if (trip->odd[i].alone) alone[count++] = trip->odd[i];
    if (count == 0) memcpy(alone, trip->odd, sizeof(alone));
    begin_anew(trip, alone, count ? count : trip->odds);
}

static int judge(RoundTrip *trip, const Odd *frame) {
    double error = frame->own_ms / (trip->usual_scale * slope_at(&trip->line, frame->size));
    double low = error < 1 / NEAR ? margin_quantile(trip->margin, 0.05) : 1.0;
    if ((1 / NEAR <= error && error <= NEAR) || (low <= error && error <= trip->margin->upper)) {
        if (trip->odds) trip->scale = sqrt(trip->scale * steady_scale(trip));
        trip->odds = 0;
        return 0;
    }
    if (trip->odd_is_slow != (error > 1)) trip->odds = 0;
    trip->odd_is_slow = error > 1;
    trip->odd[trip->odds++] = *frame;
    return trip->odds > 1 || !(1 / FAR <= error && error <= FAR);
}

static void follow(RoundTrip *trip, const Odd *frame) {
    Slope *line = &trip->line;
    int told = line->told, odd = trip->odds != 0;
    double expected_ms = trip->scale * slope_at(line, frame->size);
    if (frame->alone && !(odd && told)) slope_add(line, frame->size, frame->own_ms, margin_noise(trip->margin));
    double now_ms = expected_ms + FOLLOW * (frame->own_ms - expected_ms);
    trip->scale = told || !line->told ? now_ms / slope_at(line, frame->size) : 1.0;
    if (!odd) trip->usual_scale = trip->scale;
}

static void count_frame(RoundTrip *trip, int fell) {
    trip->frames += 1;
    trip->falls += fell;
    if (trip->frames > MOST_FRAMES) {
        trip->frames /= 2;
        trip->falls /= 2;
    }
}

static void learn(RoundTrip *trip, const Odd *frame, double foretold_bytes, double server_ms) {
    if (!trip->known) {
        begin_anew(trip, frame, 1);
        trip->server_ms = server_ms;
        trip->known = 1;
        return;
    }
    int changed = judge(trip, frame);
    margin_add(trip->margin, (frame->own_ms + server_ms) / (trip_expected_ms(trip, foretold_bytes) + trip->server_ms));
    count_frame(trip, changed && trip->odd_is_slow);
    if (changed) begin_anew_with_odd(trip);
    else follow(trip, frame);
    trip->server_ms += FOLLOW_SERVER * (server_ms - trip->server_ms);
}

void trip_answered(RoundTrip *trip, double wire_bytes, double foretold_bytes, int queued, double network_ms,
                   double server_ms, double time_s) {
    double through_s = time_s - server_ms / 1e3, own_ms = network_ms;
    trip->least_ms = least(trip->least_ms * STALE, most(network_ms, LEAST_MS));
    if (queued && through_s >= trip->through_s) {
        double apart_ms = (through_s - trip->through_s) * 1e3;
        if (network_ms > UNDELAYED * trip->least_ms)
            own_ms = least(own_ms, apart_ms + trip->scale * trip->line.base_ms);
        keep_apart(trip, apart_ms / wire_bytes);
    }
    trip->through_s = through_s;
    const Odd frame = {wire_bytes, most(own_ms, LEAST_MS), own_ms == network_ms};
    learn(trip, &frame, foretold_bytes, server_ms);
}

/* ---------------------------------------------------------------- foretelling */

double trip_queue_ms(const RoundTrip *trip, double wire_bytes) {
    return wire_bytes * least(steady_scale(trip) * trip->line.byte_ms, trip->apart_ms);
}

double trip_begun_ms(const RoundTrip *trip, double waiting_ms, double time_s) {
    return least(waiting_ms, (time_s - trip->through_s) * 1e3 + trip->scale * trip->line.base_ms);
}

double trip_expected_ms(const RoundTrip *trip, double size) {
    return trip->scale * (trip->line.base_ms + trip->line.byte_ms * size);
}

double trip_overdue(const RoundTrip *trip, double wire_bytes, double waiting_ms) {
    return waiting_ms / (trip_expected_ms(trip, wire_bytes) + trip->server_ms);
}

static double slow_ms(const RoundTrip *trip, double base_ms, double byte_ms, double first_bytes, double oldest_ms) {
    double slow = 0.0, around_ms = base_ms + trip->server_ms;
    if (trip->odds && trip->odd_is_slow) {
        const Odd *last = trip->odd + trip->odds - 1;
        slow = (last->own_ms - base_ms) / last->size;
    }
    if (first_bytes != 0 && oldest_ms > NEAR * (around_ms + byte_ms * first_bytes))
        slow = most(slow, (oldest_ms - around_ms) / first_bytes);
    return slow;
}

Fear trip_fear(const RoundTrip *trip, double ahead_bytes, double frames, double oldest_ms, double interval_ms) {
    double scale = steady_scale(trip), base_ms = scale * trip->line.base_ms, byte_ms = scale * trip->line.byte_ms;
    double slow = slow_ms(trip, base_ms, byte_ms, frames != 0 ? ahead_bytes / frames : 0.0, oldest_ms);
    double around_ms = base_ms + trip->server_ms;
    if (slow > byte_ms) {
        double queue_ms = most(slow * ahead_bytes - most(oldest_ms - base_ms, 0.0), 0.0);
        return (Fear){DOUBTED, around_ms + queue_ms, slow, interval_ms};
    }
    byte_ms *= DROP;
    return (Fear){trip->falls / trip->frames, around_ms + byte_ms * ahead_bytes, byte_ms, interval_ms};
}

/* ---------------------------------------------------------------- what Python sees */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"level", NULL};
    RoundTrip *trip = (RoundTrip *)object;
    double level;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "d", names, &level)) return -1;
    trip->scale = trip->usual_scale = 1.0;
    trip->through_s = -INFINITY;
    trip->apart_ms = trip->least_ms = INFINITY;
    trip->falls = FALLS;
    trip->frames = FRAMES;
    slope_begin(&trip->line, NAN);
    return (trip->margin = margin_of(object, level)) == NULL ? -1 : 0;
}

static PyObject *answered(PyObject *object, PyObject *args) {
    double wire_bytes, foretold_bytes, network_ms, server_ms, time_s;
    int queued;
    if (!PyArg_ParseTuple(args, "(ddp)ddd", &wire_bytes, &foretold_bytes, &queued, &network_ms, &server_ms, &time_s))
        return NULL;
    trip_answered((RoundTrip *)object, wire_bytes, foretold_bytes, queued, network_ms, server_ms, time_s);
    Py_RETURN_NONE;
}

static PyObject *waited(PyObject *object, PyObject *args) {
    RoundTrip *trip = (RoundTrip *)object;
    double size, waited_ms;
    if (!PyArg_ParseTuple(args, "dd", &size, &waited_ms)) return NULL;
    if (trip->known) trip->scale = most(trip->scale, (waited_ms - trip->server_ms) / slope_at(&trip->line, size));
    Py_RETURN_NONE;
}

static PyObject *fear(PyObject *object, PyObject *args) {
    double ahead_bytes, frames, oldest_ms, interval_ms;
    if (!PyArg_ParseTuple(args, "dddd", &ahead_bytes, &frames, &oldest_ms, &interval_ms)) return NULL;
    Fear of = trip_fear((RoundTrip *)object, ahead_bytes, frames, oldest_ms, interval_ms);
    return Py_BuildValue("(dddd)", of.share, of.base_ms, of.byte_ms, of.interval_ms);
}

static PyObject *begun_ms(PyObject *object, PyObject *args) {
    double waiting_ms, time_s;
    if (!PyArg_ParseTuple(args, "dd", &waiting_ms, &time_s)) return NULL;
    return PyFloat_FromDouble(trip_begun_ms((RoundTrip *)object, waiting_ms, time_s));
}

static PyObject *overdue(PyObject *object, PyObject *args) {
    double wire_bytes, waiting_ms;
    if (!PyArg_ParseTuple(args, "dd", &wire_bytes, &waiting_ms)) return NULL;
    return PyFloat_FromDouble(trip_overdue((RoundTrip *)object, wire_bytes, waiting_ms));
}

static PyObject *queue_ms(PyObject *object, PyObject *number) {
    double wire_bytes = PyFloat_AsDouble(number);
    if (wire_bytes == -1 && PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble(trip_queue_ms((RoundTrip *)object, wire_bytes));
}

static PyObject *expected_ms(PyObject *object, PyObject *number) {
    double size = PyFloat_AsDouble(number);
    if (size == -1 && PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble(trip_expected_ms((RoundTrip *)object, size));
}

static PyObject *usual_ms(PyObject *object, PyObject *number) {
    const RoundTrip *trip = (RoundTrip *)object;
    double size = PyFloat_AsDouble(number);
    if (size == -1 && PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble(steady_scale(trip) * slope_at(&trip->line, size) + trip->server_ms);
}

static PyObject *line(PyObject *object, void *unused) {
    (void)unused;
    const RoundTrip *trip = (RoundTrip *)object;
    return Py_BuildValue("(dd)", trip->scale * trip->line.base_ms + trip->server_ms, trip->scale * trip->line.byte_ms);
}

static PyObject *calm(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((RoundTrip *)object)->odds == 0);
}

static void dealloc(PyObject *object) {
    Py_CLEAR(((RoundTrip *)object)->margin);
    dealloc_plain(object);
}

static PyMethodDef methods[] = {
    {"answered", answered, METH_VARARGS, "answered(sent, network_ms, server_ms, time_s)"},
    {"waited", waited, METH_VARARGS, "waited(size, waited_ms)"},
    {"fear", fear, METH_VARARGS, "fear(ahead_bytes, frames, oldest_ms, interval_ms) -> the numbers of a ways.Fear"},
    {"begun_ms", begun_ms, METH_VARARGS, "begun_ms(waiting_ms, time_s) -> float"},
    {"overdue", overdue, METH_VARARGS, "overdue(wire_bytes, waiting_ms) -> float"},
    {"queue_ms", queue_ms, METH_O, "queue_ms(wire_bytes) -> float"},
    {"expected_ms", expected_ms, METH_O, "expected_ms(size) -> float"},
    {"usual_ms", usual_ms, METH_O, "usual_ms(size) -> float"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"margin", T_OBJECT, offsetof(RoundTrip, margin), READONLY, "Of what was foretold."},
    {"scale", T_DOUBLE, offsetof(RoundTrip, scale), READONLY, "Of the line, at present."},
    {"server_ms", T_DOUBLE, offsetof(RoundTrip, server_ms), READONLY, "Of the last answers, in the mean."},
    {"known", T_BOOL, offsetof(RoundTrip, known), READONLY, "A frame has been answered."},
    {"told", T_BOOL, offsetof(RoundTrip, line.told), READONLY, "It is known what of a time is the bytes'."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"line", line, NULL, "Middling time beside the bytes, and of a byte.", NULL},
    {"calm", calm, NULL, "The last frame took about what was foretold.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See estimates.RoundTrip."}, {Py_tp_init, init},       {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},                {Py_tp_members, members}, {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec trip_spec = {"headwater.device.control._ways.RoundTrip", sizeof(RoundTrip), 0, Py_TPFLAGS_DEFAULT, slots};
