/* What a picture takes on the device: estimates.DeviceEstimate. */
#include "_ways.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

static double most(double one, double other) { return other > one ? other : one; }
static double least(double one, double other) { return other < one ? other : one; }

/* ---------------------------------------------------------------- learning */

static double paced(double pace_ms, double time_ms) {
    if (time_ms < pace_ms) return most(most(time_ms, pace_ms * FALL), LEAST_MS);
    return time_ms <= NEAR * pace_ms ? least(pace_ms * RISE, time_ms) : pace_ms;
}

static void forget_first(DeviceEstimate *device) {
    size_t left = (size_t)--device->recent_count * sizeof(double);
    memmove(device->recent, device->recent + 1, left);
    memmove(device->recent_s, device->recent_s + 1, left);
}

/* The second largest of the recent ones, and the least. */
static void sum_up(DeviceEstimate *device) {
    double low = device->recent[0], high = -INFINITY, second = -INFINITY;
    for (int i = 0; i < device->recent_count; i++) {
        double ratio = device->recent[i];
        low = least(low, ratio);
        if (ratio > high) {
            second = high;
            high = ratio;
        } else if (ratio > second) {
            second = ratio;
        }
    }
    device->least_factor = low;
    device->factor = device->recent_count > 1 ? second : low;
}

static void learn(DeviceEstimate *device, double time_ms, double pace_ms, double time_s, int new) {
    double ratio = most(time_ms, LEAST_MS) / pace_ms;
    if (!new) margin_add(device->margin, ratio / device->factor);
    if (device->recent_count == RECENT) forget_first(device);
    device->recent[device->recent_count] = ratio;
    device->recent_s[device->recent_count++] = time_s;
    while (device->recent_count > LEAST_RECENT && device->recent_s[0] < time_s - RECENT_S) forget_first(device);
    sum_up(device);
}

/* Say again which of the widths that have run stands for which. */
static void share_out(DeviceEstimate *device) {
    for (Pace *pace = device->pace; pace < device->pace + device->widths; pace++) {
        pace->near = device->order[0];
        for (size_t i = 1; i < device->ran; i++) {
            const Pace *other = device->pace + device->order[i];
            if (fabs(other->width - pace->width) < fabs(device->pace[pace->near].width - pace->width))
                pace->near = device->order[i];
        }
        const Pace *near = device->pace + pace->near;
        pace->times = pace->macs / most(near->macs, 1);
        pace->head_ms = near->pace_ms * pace->times;
    }
}

void device_ran(DeviceEstimate *device, size_t number, double prepare_ms, double head_ms, double time_s) {
    Pace *pace = device->pace + number;
    if (device->ran == 0) device->prepare_ms = most(prepare_ms / device->factor, LEAST_MS);
    int new = isnan(pace->pace_ms);
    if (new) {
        pace->pace_ms = most(head_ms / device->factor, LEAST_MS);
        device->order[device->ran++] = number;
        share_out(device);
    }
    learn(device, prepare_ms + head_ms, device->prepare_ms + pace->pace_ms, time_s, new);
    device->prepare_ms = paced(device->prepare_ms, prepare_ms);
    pace->pace_ms = paced(pace->pace_ms, head_ms);
    for (Pace *other = device->pace; other < device->pace + device->widths; other++)
        if (other->near == number) other->head_ms = pace->pace_ms * other->times;
}

void device_coded(DeviceEstimate *device, double time_ms) {
    device->code_ms = most(time_ms, 0.9 * device->code_ms);
}

static void ran_whole(DeviceEstimate *device, double time_ms, double time_s) {
    int new = isnan(device->alone_ms);
    double pace_ms = new ? most(time_ms / device->factor, LEAST_MS) : device->alone_ms;
    learn(device, time_ms, pace_ms, time_s, new);
    device->alone_ms = paced(pace_ms, time_ms);
}

/* ---------------------------------------------------------------- what Python sees */

/* The number of a width; the count of them with an exception set if it is none. */
static size_t number_of_width(const DeviceEstimate *device, double width) {
    for (size_t i = 0; i < device->widths; i++)
        if (device->pace[i].width == width) return i;
    if (!PyErr_Occurred()) {
        PyObject *of = PyFloat_FromDouble(width);
        if (of != NULL) PyErr_SetObject(PyExc_KeyError, of);
        Py_XDECREF(of);
    }
    return device->widths;
}

static int by_width(const void *one, const void *other) {
    double first = ((const Pace *)one)->width, second = ((const Pace *)other)->width;
    return (first > second) - (first < second);
}

static int take_macs(DeviceEstimate *device, PyObject *macs) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    device->widths = (size_t)PyDict_Size(macs);
    device->pace = calloc(device->widths + 1, sizeof(Pace));
    device->order = calloc(device->widths + 1, sizeof(size_t));
    if (device->pace == NULL || device->order == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    for (Pace *pace = device->pace; PyDict_Next(macs, &at, &key, &value); pace++)
        *pace = (Pace){PyFloat_AsDouble(key), PyFloat_AsDouble(value), NAN, 0.0, 0.0, device->widths};
    qsort(device->pace, device->widths, sizeof(Pace), by_width);
    return PyErr_Occurred() ? -1 : 0;
}

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"macs", "level", NULL};
    DeviceEstimate *device = (DeviceEstimate *)object;
    PyObject *macs;
    double level;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!d", names, &PyDict_Type, &macs, &level)) return -1;
    device->factor = device->least_factor = 1.0;
    device->alone_ms = NAN;
    if (take_macs(device, macs) < 0) return -1;
    return (device->margin = margin_of(object, level)) == NULL ? -1 : 0;
}

static PyObject *ran(PyObject *object, PyObject *args) {
    DeviceEstimate *device = (DeviceEstimate *)object;
    double width, prepare_ms, head_ms, time_s;
    if (!PyArg_ParseTuple(args, "dddd", &width, &prepare_ms, &head_ms, &time_s)) return NULL;
    size_t number = number_of_width(device, width);
    if (number == device->widths) return NULL;
    device_ran(device, number, prepare_ms, head_ms, time_s);
    Py_RETURN_NONE;
}

static PyObject *ran_whole_model(PyObject *object, PyObject *args) {
    double time_ms, time_s;
    if (!PyArg_ParseTuple(args, "dd", &time_ms, &time_s)) return NULL;
    ran_whole((DeviceEstimate *)object, time_ms, time_s);
    Py_RETURN_NONE;
}

static PyObject *coded(PyObject *object, PyObject *number) {
    double time_ms = PyFloat_AsDouble(number);
    if (time_ms == -1 && PyErr_Occurred()) return NULL;
    device_coded((DeviceEstimate *)object, time_ms);
    Py_RETURN_NONE;
}

static PyObject *expected_ms(PyObject *object, PyObject *number) {
    const DeviceEstimate *device = (DeviceEstimate *)object;
    size_t at = number_of_width(device, PyFloat_AsDouble(number));
    if (at == device->widths) return NULL;
    return PyFloat_FromDouble((device->prepare_ms + device->pace[at].head_ms) * device->factor);
}

static PyObject *fresh(PyObject *object, PyObject *number) {
    const DeviceEstimate *device = (DeviceEstimate *)object;
    double time_s = PyFloat_AsDouble(number);
    if (time_s == -1 && PyErr_Occurred()) return NULL;
    int count = device->recent_count;
    return PyBool_FromLong(count && device->recent_s[count - 1] >= time_s - RECENT_S);
}

static PyObject *whole_ms(PyObject *object, PyObject *number) {
    const DeviceEstimate *device = (DeviceEstimate *)object;
    double alone_ms = PyFloat_AsDouble(number);
    if (alone_ms == -1 && PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble((isnan(device->alone_ms) ? alone_ms : device->alone_ms) * device->factor);
}

static PyObject *heads_ms(PyObject *object, void *unused) {
    (void)unused;
    const DeviceEstimate *device = (DeviceEstimate *)object;
    PyObject *heads = PyList_New((Py_ssize_t)device->widths);
    for (size_t i = 0; heads != NULL && i < device->widths; i++)
        PyList_SetItem(heads, (Py_ssize_t)i, PyFloat_FromDouble(device->pace[i].head_ms));
    return heads;
}

static PyObject *known(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((DeviceEstimate *)object)->ran != 0);
}

static void dealloc(PyObject *object) {
    DeviceEstimate *device = (DeviceEstimate *)object;
    free(device->pace);
    free(device->order);
    Py_CLEAR(device->margin);
    dealloc_plain(object);
}

static PyMethodDef methods[] = {
    {"ran", ran, METH_VARARGS, "ran(width, prepare_ms, head_ms, time_s)"},
    {"ran_whole", ran_whole_model, METH_VARARGS, "ran_whole(time_ms, time_s)"},
    {"coded", coded, METH_O, "coded(time_ms)"},
    {"expected_ms", expected_ms, METH_O, "expected_ms(width) -> float"},
    {"fresh", fresh, METH_O, "fresh(time_s) -> bool"},
    {"whole_ms", whole_ms, METH_O, "whole_ms(alone_ms) -> float"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"margin", T_OBJECT, offsetof(DeviceEstimate, margin), READONLY, "Of what was foretold."},
    {"factor", T_DOUBLE, offsetof(DeviceEstimate, factor), READONLY, "How much longer everything takes."},
    {"least_factor", T_DOUBLE, offsetof(DeviceEstimate, least_factor), READONLY, "Of the last second."},
    {"code_ms", T_DOUBLE, offsetof(DeviceEstimate, code_ms), READONLY, "Slow end of coding."},
    {"prepare_ms", T_DOUBLE, offsetof(DeviceEstimate, prepare_ms), READONLY, "While nothing else runs."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"heads_ms", heads_ms, NULL, "Of head and exit by width, narrowest first.", NULL},
    {"known", known, NULL, "A head has run.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See estimates.DeviceEstimate."}, {Py_tp_init, init},       {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},                     {Py_tp_members, members}, {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec device_spec = {"headwater.device.control._ways.DeviceEstimate", sizeof(DeviceEstimate), 0,
                           Py_TPFLAGS_DEFAULT, slots};
