/* Errors of a forecast: margin.Margin as a C type. */
#include "_ways.h"

#include <math.h>
#include <string.h>
#include <structmember.h>

/* How many errors are not above this one. */
static int rank_of(const Margin *margin, double error) {
    int low = 0, high = margin->count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (error < margin->sorted[middle]) high = middle;
        else low = middle + 1;
    }
    return low;
}

static void forget_oldest(Margin *margin) {
    int at = rank_of(margin, margin->order[margin->oldest]) - 1;
    margin->count--;
    memmove(margin->sorted + at, margin->sorted + at + 1, (size_t)(margin->count - at) * sizeof(double));
}

static void keep(Margin *margin, double error) {
    int at = rank_of(margin, error);
    memmove(margin->sorted + at + 1, margin->sorted + at, (size_t)(margin->count - at) * sizeof(double));
    margin->sorted[at] = error;
    margin->count++;
    margin->order[margin->oldest] = error;
    margin->oldest = (margin->oldest + 1) % MEMORY;
}

static int body_rank(int count) {
    int rank = (int)ceil(BODY * (count + 2));
    return (rank < count + 1 ? rank : count + 1) - 1;
}

void margin_add(Margin *margin, double error) {
    double correction = margin->correction + (error > margin->upper ? margin->miss : margin->hit);
    if (correction < LEAST_CORRECTION) correction = LEAST_CORRECTION;
    if (correction > MOST_CORRECTION) correction = MOST_CORRECTION;
    margin->correction = correction;
    if (margin->count == MEMORY) forget_oldest(margin);
    else margin->body = body_rank(margin->count);
    keep(margin, error);
    margin->upper = margin->sorted[margin->body] * exp(correction);
}

static double chance_of(const Margin *margin, double error) {
    double guess = error > 1 ? 1 - 0.5 / error : 0.5 * error;
    return (rank_of(margin, error) + guess) / (margin->count + 1);
}

double margin_chance(const Margin *margin, double error, double beyond) {
    double chance = chance_of(margin, error);
    if (beyond == 0) return chance;
    double gone = chance_of(margin, beyond);
    return error > beyond ? (chance - gone) / (1 - gone) : 0.0;
}

double margin_quantile(const Margin *margin, double share) {
    return margin->count ? margin->sorted[(int)(share * margin->count)] : 1.0;
}

double margin_noise(const Margin *margin) {
    int n = margin->count;
    return n ? log(margin->sorted[(int)(0.8 * n)] / margin->sorted[(int)(0.2 * n)]) / 2 : 0.0;
}

/* ---------------------------------------------------------------- what Python sees */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"level", NULL};
    Margin *margin = (Margin *)object;
    double level;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "d", names, &level)) return -1;
    margin->miss = STEP * level;
    margin->hit = STEP * (level - 1);
    margin->correction = FIRST_CORRECTION;
    margin->upper = exp(FIRST_CORRECTION);
    margin->count = margin->oldest = margin->body = 0;
    return 0;
}

Margin *margin_of(PyObject *owner, double level) {
    PyObject *type = PyObject_GetAttrString(PyType_GetModule(Py_TYPE(owner)), "Margin");
    PyObject *margin = type == NULL ? NULL : PyObject_CallFunction(type, "d", level);
    Py_XDECREF(type);
    return (Margin *)margin;
}

void dealloc_plain(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *add(PyObject *object, PyObject *number) {
    double error = PyFloat_AsDouble(number);
    if (error == -1 && PyErr_Occurred()) return NULL;
    margin_add((Margin *)object, error);
    Py_RETURN_NONE;
}

static PyObject *chance(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"error", "beyond", NULL};
    double error, beyond = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "d|d", names, &error, &beyond)) return NULL;
    return PyFloat_FromDouble(margin_chance((Margin *)object, error, beyond));
}

static PyObject *quantile(PyObject *object, PyObject *number) {
    double share = PyFloat_AsDouble(number);
    if (share == -1 && PyErr_Occurred()) return NULL;
    if (!(share >= 0 && share < 1)) {
        PyErr_SetString(PyExc_ValueError, "a share is from 0 to below 1");
        return NULL;
    }
    return PyFloat_FromDouble(margin_quantile((Margin *)object, share));
}

static PyObject *noise(PyObject *object, void *unused) {
    (void)unused;
    return PyFloat_FromDouble(margin_noise((Margin *)object));
}

static PyMethodDef methods[] = {
    {"add", add, METH_O, "Learn the error of a forecast."},
    {"chance", (PyCFunction)(void (*)(void))chance, METH_VARARGS | METH_KEYWORDS, "chance(error, beyond=0.0) -> float"},
    {"quantile", quantile, METH_O, "The error that this share of the recent ones does not exceed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"upper", T_DOUBLE, offsetof(Margin, upper), READONLY, "What an error is at most."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"noise", noise, NULL, "Half of the width of the errors' middle, relative.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See margin.Margin."},
    {Py_tp_init, init},
    {Py_tp_dealloc, dealloc_plain},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec margin_spec = {"headwater.device.control._ways.Margin", sizeof(Margin), 0, Py_TPFLAGS_DEFAULT, slots};
