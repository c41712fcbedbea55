/* What links carry at the rate of a trace: links.RateLink and trace.Trace.finish. Bulk, black-outs and LoRa are left to
 * Python. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <structmember.h>

/* ---------------------------------------------------------------- a trace */

/* Python's % of a number that is not below 0. */
static double modulo(double number, double by) {
    double rest = fmod(number, by);
    if (rest == 0) return copysign(0.0, by);
    return rest < 0 ? rest + by : rest;
}

/* Python's divmod, of positive `by`. */
static double divided(double number, double by, double *rest) {
    double left = fmod(number, by), times = (number - left) / by;
    if (left != 0 && left < 0) {
        left += by;
        times -= 1.0;
    }
    *rest = left == 0 ? copysign(0.0, by) : left;
    if (times == 0) return copysign(0.0, number / by);
    double whole = floor(times);
    return times - whole > 0.5 ? whole + 1.0 : whole;
}

/* bisect's right and left, of sorted[0:count]. */
static Py_ssize_t bisect(const double *sorted, Py_ssize_t count, double number, int right) {
    Py_ssize_t low = 0, high = count;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        if (right ? number < sorted[middle] : !(sorted[middle] < number)) high = middle;
        else low = middle + 1;
    }
    return low;
}

static double capacity(const Carrier *of, double time_s) {
    double within, rounds = divided(time_s, of->ends[of->segments], &within);
    Py_ssize_t at = bisect(of->ends, of->segments + 1, within, 1);
    at = (at < of->segments ? at : of->segments) - 1;
    return rounds * of->bytes[of->segments] + of->bytes[at] + (within - of->ends[at]) * of->rates[at];
}

/* trace.Trace.finish. */
static double finish(const Carrier *of, double start_s, double size) {
    if (size <= 0) return start_s;
    double within = modulo(start_s, of->ends[of->segments]), total = of->bytes[of->segments];
    Py_ssize_t at = bisect(of->ends, of->segments, within, 1) - 1;
    double rate = of->rates[at];
    if (rate != 0 && size <= (of->ends[at + 1] - within) * rate) return start_s + size / rate;
    if (total == 0) return INFINITY;
    double rounds = divided(capacity(of, start_s) + size, total, &within);
    if (within == 0) {
        rounds -= 1;
        within = total;
    }
    at = bisect(of->bytes, of->segments + 1, within, 0) - 1;
    double when = rounds * of->ends[of->segments] + of->ends[at] + (within - of->bytes[at]) / of->rates[at];
    return when > start_s ? when : start_s;
}

static double carry(const Carrier *of, double start_s, double size, double shift_s) {
    if (!isnan(of->byte_s)) return start_s + size * of->byte_s;
    return start_s < INFINITY ? finish(of, start_s + shift_s, size) - shift_s : INFINITY;
}

/* ---------------------------------------------------------------- a radio */

static double beats(const Road *road, double gap_s) {
    if (isnan(road->beat_s) || gap_s < road->beat_s) return gap_s;
    long long count = (long long)(gap_s / road->beat_s);
    Used *used = road->used;
    used->up_bytes += (double)count * road->beat_bytes;
    used->down_bytes += (double)count * road->beat_bytes;
    if (!isnan(road->awake_s)) {
        used->tail_s += (double)count * (road->beat_s < road->awake_s ? road->beat_s : road->awake_s);
        used->wakes += road->beat_s > road->awake_s ? count : 0;
    }
    return gap_s - (double)count * road->beat_s;
}

static double ready(const Road *road, const Line *line, double now_s) {
    double gap_s = now_s - line->last_s;
    if (!isnan(road->beat_s) && gap_s >= road->beat_s) gap_s = beats(road, gap_s);
    if (isnan(road->awake_s) || gap_s <= 0) return now_s;
    if (gap_s <= road->awake_s) {
        road->used->tail_s += gap_s;
        return now_s;
    }
    road->used->tail_s += road->awake_s;
    road->used->wakes++;
    return now_s + road->wake_s;
}

static double later(double one, double other) { return other > one ? other : one; }

static double carry_up(Road *road, Line *line, double now_s, long size) {
    double wire_bytes = (double)size + road->frame_bytes;
    double start_s = later(ready(road, line, now_s), line->up_s);
    double end_s = line->up_s = line->last_s = carry(&road->up, start_s, wire_bytes, line->shift_s);
    road->used->up_bytes += wire_bytes;
    if (end_s < INFINITY) road->used->send_s += end_s - start_s;
    return end_s + road->up_delay_s;
}

static double carry_down(Road *road, Line *line, double now_s) {
    double start_s = later(ready(road, line, now_s + road->down_delay_s), line->down_s);
    double end_s = line->down_s = carry(&road->down, start_s, road->answer_bytes, line->shift_s);
    line->last_s = later(line->last_s, end_s);
    road->used->down_bytes += road->answer_bytes;
    if (end_s < INFINITY) road->used->receive_s += end_s - start_s;
    return end_s;
}

/* ---------------------------------------------------------------- for crews */

static int is_plain(PyObject *link, PyObject *bulk) {
    return PyObject_TypeCheck(link, road_type) && !((Road *)link)->gaps && bulk == Py_None;
}

static int called(PyObject *link, PyObject *name, Line *line, double now_s, PyObject *size, double *result) {
    PyObject *now = PyFloat_FromDouble(now_s);
    *result = NAN;
    if (now == NULL) return -1;
    int done = double_of(PyObject_CallMethodObjArgs(link, name, (PyObject *)line, now, size, NULL), result);
    Py_DECREF(now);
    return done;
}

int link_up(PyObject *link, Line *line, double now_s, long size, double *there_s) {
    if (is_plain(link, line->bulk_up)) {
        *there_s = carry_up((Road *)link, line, now_s, size);
        return 0;
    }
    PyObject *bytes = PyLong_FromLong(size);
    if (bytes == NULL) return -1;
    int done = called(link, names.up, line, now_s, bytes, there_s);
    Py_DECREF(bytes);
    return done;
}

int link_down(PyObject *link, Line *line, double now_s, double *back_s) {
    if (!is_plain(link, line->bulk_down)) return called(link, names.down, line, now_s, NULL, back_s);
    *back_s = carry_down((Road *)link, line, now_s);
    return 0;
}

int link_loss(PyObject *link, long size, double *lost) {
    *lost = 0.0;
    if (PyObject_TypeCheck(link, road_type)) return 0;
    PyObject *bytes = PyLong_FromLong(size);
    if (bytes == NULL) return -1;
    int done = double_of(PyObject_CallMethodObjArgs(link, names.loss, bytes, NULL), lost);
    Py_DECREF(bytes);
    return done;
}

/* ---------------------------------------------------------------- what Python sees */

static int take_carrier(Carrier *of, PyObject *lists) {
    Py_ssize_t ends, bytes;
    if (doubles_attribute(lists, "ends", &of->ends, &ends) < 0) return -1;
    if (doubles_attribute(lists, "bytes", &of->bytes, &bytes) < 0) return -1;
    if (doubles_attribute(lists, "rates", &of->rates, &of->segments) < 0) return -1;
    if (of->segments < 1 || ends != of->segments + 1 || bytes != ends) {
        PyErr_SetString(PyExc_ValueError, "a trace needs one more end than it has rates");
        return -1;
    }
    return double_attribute(lists, "byte_s", &of->byte_s);
}

static PyObject *lay(PyObject *object, PyObject *args) {
    Road *road = (Road *)object;
    PyObject *used, *up, *down;
    if (road->used != NULL) return PyErr_Format(PyExc_RuntimeError, "a road is laid once");
    if (!PyArg_ParseTuple(args, "OOO(dddd)(dddd)p", &used, &up, &down, &road->awake_s, &road->wake_s, &road->beat_s,
                          &road->beat_bytes, &road->up_delay_s, &road->down_delay_s, &road->frame_bytes,
                          &road->answer_bytes, &road->gaps))
        return NULL;
    if (take_carrier(&road->up, up) < 0 || take_carrier(&road->down, down) < 0) return NULL;
    road->used = (Used *)Py_NewRef(used);
    Py_RETURN_NONE;
}

static void dealloc_road(PyObject *object) {
    Road *road = (Road *)object;
    Carrier *both[] = {&road->up, &road->down};
    for (int i = 0; i < 2; i++) {
        free(both[i]->ends);
        free(both[i]->bytes);
        free(both[i]->rates);
    }
    dealloc_with(object, (PyObject **[]){(PyObject **)&road->used}, 1);
}

static int init_line(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *keys[] = {"shift_s", NULL};
    Line *line = (Line *)object;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "d", keys, &line->shift_s)) return -1;
    line->bulk_up = Py_NewRef(Py_None);
    line->bulk_down = Py_NewRef(Py_None);
    return 0;
}

static void dealloc_line(PyObject *object) {
    Line *line = (Line *)object;
    dealloc_with(object, (PyObject **[]){&line->bulk_up, &line->bulk_down}, 2);
}

static void dealloc_used(PyObject *object) { dealloc_with(object, NULL, 0); }

static PyMethodDef road_methods[] = {
    {"lay", lay, METH_VARARGS, "lay(used, up, down, radio, overheads, gaps): see core.py."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef line_members[] = {
    {"shift_s", T_DOUBLE, offsetof(Line, shift_s), 0, NULL},
    {"up_s", T_DOUBLE, offsetof(Line, up_s), 0, NULL},
    {"down_s", T_DOUBLE, offsetof(Line, down_s), 0, NULL},
    {"last_s", T_DOUBLE, offsetof(Line, last_s), 0, NULL},
    {"bulk_up", T_OBJECT, offsetof(Line, bulk_up), 0, NULL},
    {"bulk_down", T_OBJECT, offsetof(Line, bulk_down), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef used_members[] = {
    {"send_s", T_DOUBLE, offsetof(Used, send_s), 0, NULL},
    {"receive_s", T_DOUBLE, offsetof(Used, receive_s), 0, NULL},
    {"tail_s", T_DOUBLE, offsetof(Used, tail_s), 0, NULL},
    {"up_bytes", T_DOUBLE, offsetof(Used, up_bytes), 0, NULL},
    {"down_bytes", T_DOUBLE, offsetof(Used, down_bytes), 0, NULL},
    {"wakes", T_LONGLONG, offsetof(Used, wakes), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot road_slots[] = {
    {Py_tp_doc, "What links.RateLink carries, where nothing but frames is on it."},
    {Py_tp_dealloc, dealloc_road},
    {Py_tp_methods, road_methods},
    {0, NULL},
};

static PyType_Slot line_slots[] = {
    {Py_tp_doc, "See links.Line."}, {Py_tp_init, init_line}, {Py_tp_dealloc, dealloc_line},
    {Py_tp_members, line_members},  {0, NULL},
};

static PyType_Slot used_slots[] = {
    {Py_tp_doc, "See links.Used."}, {Py_tp_dealloc, dealloc_used}, {Py_tp_members, used_members}, {0, NULL},
};

#define NAMED(name) "headwater.simulations.fleet._core." name
PyType_Spec road_spec = {NAMED("Road"), sizeof(Road), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, road_slots};
PyType_Spec line_spec = {NAMED("Line"), sizeof(Line), 0, Py_TPFLAGS_DEFAULT, line_slots};
PyType_Spec used_spec = {NAMED("Used"), sizeof(Used), 0, Py_TPFLAGS_DEFAULT, used_slots};
