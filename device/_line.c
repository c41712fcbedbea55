/* Time over size as a straight line: estimates.Line as a C type. */
#include "_ways.h"

#include <math.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    double frames, sizes, times, squares, products; /* weighted sums */
    double guess_ms; /* not a number: none */
    double base_ms, byte_ms;
    char told;
} Line;

static double most(double one, double other) { return other > one ? other : one; }
static double least(double one, double other) { return other < one ? other : one; }

static void weigh_in(Line *line, double size, double time_ms) {
    double weight = 1 / (time_ms * time_ms), sized = weight * size;
    line->frames = FORGET * line->frames + weight;
    line->sizes = FORGET * line->sizes + sized;
    line->times = FORGET * line->times + weight * time_ms;
    line->squares = FORGET * line->squares + sized * size;
    line->products = FORGET * line->products + sized * time_ms;
}

static void learn(Line *line, double size, double time_ms, double noise) {
    weigh_in(line, size, time_ms);
    double n = line->frames, s = line->sizes, t = line->times, ss = line->squares, st = line->products;
    double mean_ms = t / n, off = most(noise, LEAST_NOISE) / GUESS_OFF;
    double anchor = off * off / (mean_ms * mean_ms);
    double guess_ms = isnan(line->guess_ms) ? GUESS * mean_ms : line->guess_ms;
    double spread = n * ss - s * s, whole = (n + anchor) * ss - s * s;
    double base_ms = ((t + anchor * guess_ms) * ss - s * st) / whole;
    int tells = spread > TOLD * whole;
    line->base_ms = base_ms = least(most(base_ms, 0.0), tells || line->told ? mean_ms : MOST_BASE * mean_ms);
    line->byte_ms = (mean_ms - base_ms) * n / s;
    if (tells) {
        line->told = 1;
        line->guess_ms = base_ms;
    }
}

/* ---------------------------------------------------------------- what Python sees */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"guess_ms", NULL};
    Line *line = (Line *)object;
    PyObject *guess = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O", names, &guess)) return -1;
    line->frames = line->sizes = line->times = line->squares = line->products = 0.0;
    line->base_ms = line->byte_ms = 0.0;
    line->told = 0;
    line->guess_ms = guess == Py_None ? NAN : PyFloat_AsDouble(guess);
    return line->guess_ms == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *add(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    double of[3];
    if (count != 3) return PyErr_Format(PyExc_TypeError, "add takes 3 arguments, not %zd", count);
    for (int i = 0; i < 3; i++) {
        of[i] = PyFloat_AsDouble(args[i]);
        if (of[i] == -1 && PyErr_Occurred()) return NULL;
    }
    learn((Line *)object, of[0], of[1], of[2]);
    Py_RETURN_NONE;
}

static PyObject *at(PyObject *object, PyObject *number) {
    const Line *line = (Line *)object;
    double size = PyFloat_AsDouble(number);
    if (size == -1 && PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble(line->base_ms + line->byte_ms * size);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)(void (*)(void))add, METH_FASTCALL, "add(size, time_ms, noise): learn a frame."},
    {"at", at, METH_O, "Time of a frame of this size."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"base_ms", T_DOUBLE, offsetof(Line, base_ms), READONLY, "Time of a frame beside that of its bytes."},
    {"byte_ms", T_DOUBLE, offsetof(Line, byte_ms), READONLY, "Of a byte."},
    {"told", T_BOOL, offsetof(Line, told), READONLY, "Frames of several sizes say so, and not the guess."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See estimates.Line."}, {Py_tp_init, init},       {Py_tp_dealloc, dealloc_plain},
    {Py_tp_methods, methods},           {Py_tp_members, members}, {0, NULL},
};

PyType_Spec line_spec = {"headwater.device._ways.Line", sizeof(Line), 0, Py_TPFLAGS_DEFAULT, slots};
