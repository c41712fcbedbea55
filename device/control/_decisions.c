/* Decisions of controller.Decision, made where they are needed: the same one is not made twice. */
#include "_ways.h"

#include <math.h>
#include <stdlib.h>

#define FIELDS 5

struct Decisions {
    PyObject_HEAD
    PyObject *type, *send, *reasons[REASONS], *names[FIELDS];
    PyObject **made; /* of all groups: [mode][reason] */
    size_t modes;
};

/* As frozen dataclasses set their own fields. */
static PyObject *make(const Decisions *of, long mode, PyObject *groups, PyObject *most_bytes, PyObject *reason) {
    PyTypeObject *type = (PyTypeObject *)of->type;
    PyObject *none = PyTuple_New(0), *number = PyLong_FromLong(mode);
    PyObject *made = none == NULL ? NULL : ((newfunc)PyType_GetSlot(type, Py_tp_new))(type, none, NULL);
    PyObject *fields[FIELDS] = {number, groups, of->send, most_bytes, reason};
    for (int i = 0; made != NULL && i < FIELDS; i++)
        if (fields[i] == NULL || PyObject_GenericSetAttr(made, of->names[i], fields[i]) < 0) Py_CLEAR(made);
    Py_XDECREF(none);
    Py_XDECREF(number);
    return made;
}

static PyObject *groups_of(long groups) { return groups < 0 ? Py_NewRef(Py_None) : PyLong_FromLong(groups); }

PyObject *decision_to_send(Decisions *of, const Option *option, double chance) {
    int reason = isnan(chance) ? REASONS - 1 : (int)rint(100 * fmin(fmax(chance, 0.0), 1.0));
    PyObject **made = of->made + REASONS * option->mode + reason;
    if (option->groups < 0 && *made != NULL) return Py_NewRef(*made);
    PyObject *groups = groups_of(option->groups);
    PyObject *decision = groups == NULL ? NULL : make(of, option->mode, groups, Py_None, of->reasons[reason]);
    Py_XDECREF(groups);
    if (option->groups < 0) *made = Py_XNewRef(decision);
    return decision;
}

PyObject *decision_with_most(Decisions *of, const Option *option, PyObject *decision, double most_bytes) {
    PyObject *groups = groups_of(option->groups), *reason = PyObject_GetAttr(decision, of->names[FIELDS - 1]);
    PyObject *most = PyLong_FromDouble(most_bytes), *made = NULL;
    if (groups != NULL && reason != NULL && most != NULL) made = make(of, option->mode, groups, most, reason);
    Py_XDECREF(groups);
    Py_XDECREF(reason);
    Py_XDECREF(most);
    return made;
}

/* ---------------------------------------------------------------- what Python sees */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *keys[] = {"decision", "reasons", "modes", NULL};
    const char *fields[FIELDS] = {"mode", "groups", "action", "most_bytes", "reason"};
    Decisions *of = (Decisions *)object;
    PyObject *type, *reasons;
    Py_ssize_t modes;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO!n", keys, &type, &PyTuple_Type, &reasons, &modes)) return -1;
    of->type = Py_NewRef(type);
    of->modes = (size_t)modes;
    of->send = PyUnicode_InternFromString("send");
    for (int i = 0; i < FIELDS; i++) of->names[i] = PyUnicode_InternFromString(fields[i]);
    for (Py_ssize_t i = 0; i < REASONS && !PyErr_Occurred(); i++)
        of->reasons[i] = Py_XNewRef(PyTuple_GetItem(reasons, i));
    if ((of->made = calloc(of->modes * REASONS + 1, sizeof(PyObject *))) == NULL) PyErr_NoMemory();
    return PyErr_Occurred() ? -1 : 0;
}

static void dealloc(PyObject *object) {
    Decisions *of = (Decisions *)object;
    for (int i = 0; i < FIELDS; i++) Py_XDECREF(of->names[i]);
    for (int i = 0; i < REASONS; i++) Py_XDECREF(of->reasons[i]);
    for (size_t i = 0; of->made != NULL && i < of->modes * REASONS; i++) Py_XDECREF(of->made[i]);
    Py_XDECREF(of->type);
    Py_XDECREF(of->send);
    free(of->made);
    dealloc_plain(object);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Decisions(Decision, reasons, modes): those to send, for all controllers of the same modes."},
    {Py_tp_init, init},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

PyType_Spec decisions_spec = {"headwater.device.control._ways.Decisions", sizeof(Decisions), 0, Py_TPFLAGS_DEFAULT,
                              slots};
