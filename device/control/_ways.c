/* What Python sees of the kernel: the arguments of ways._Scales.all and best, and their results. */
#include "_ways.h"

#include <math.h>
#include <stdlib.h>

static const char *const action_names[ACTIONS] = {"local", "send", "whole", "skip"};

/* ---------------------------------------------------------------- what Python gives */

/* Numbers of a tuple from its beginning on; 0 with an exception set if it is none or has too few. */
static int numbers_of(PyObject *tuple, double *numbers, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(tuple, i);
        if (item == NULL) return 0;
        numbers[i] = PyFloat_AsDouble(item);
        if (numbers[i] == -1 && PyErr_Occurred()) return 0;
    }
    return 1;
}

static int number_of(PyObject *object, double *number) {
    *number = object == NULL ? -1 : PyFloat_AsDouble(object);
    return !(*number == -1 && PyErr_Occurred());
}

/* What the local exit is worth at each width, and what its head takes. */
static int take_widths(const Scales *scales, PyObject *exits, PyObject *heads_ms) {
    for (size_t i = 0; i < scales->table.widths; i++) {
        Width *width = scales->table.width + i;
        PyObject *exit = PyTuple_GetItem(exits, width->number);
        if (exit == NULL || !number_of(PyList_GetItem(heads_ms, width->number), &width->head_ms)) return 0;
        if (exit == Py_None) width->local = NAN;
        else if (!number_of(exit, &width->local)) return 0;
    }
    return 1;
}

static int take_room(const Scales *scales, PyObject *object, Room *room) {
    double of[7], feared[4];
    room->margin = NULL;
    if (object == Py_None) return 1;
    PyObject *margin = PyTuple_GetItem(object, 7), *fear = PyTuple_GetItem(object, 8);
    if (margin == NULL || fear == NULL || !numbers_of(object, of, 7) || !numbers_of(fear, feared, 4)) return 0;
    if ((PyObject *)Py_TYPE(margin) != scales->margin_type) {
        PyErr_SetString(PyExc_TypeError, "the room's margin is not the compiled one");
        return 0;
    }
    const Fear then = {feared[0], feared[1], feared[2], feared[3]};
    *room = (Room){of[0], of[1], of[2], of[3], of[4], of[5], of[6], (const Margin *)margin, then};
    return 1;
}

static int take_work(const Scales *scales, PyObject *exits, PyObject *object, Work *work) {
    double of[4];
    PyObject *heads_ms = PyTuple_GetItem(object, 4);
    if (heads_ms == NULL || !numbers_of(object, of, 4)) return 0;
    *work = (Work){of[0], of[1], of[2], of[3]};
    return take_widths(scales, exits, heads_ms);
}

static int take_wanted(PyObject *object, Wanted *wanted) {
    double of[7];
    if (!numbers_of(object, of, 7)) return 0;
    *wanted = (Wanted){of[0], of[1], of[2], of[3], of[4], of[5], of[6]};
    return 1;
}

static int take_whole(const Scales *scales, PyObject *object, Way *whole) {
    double worth, compute_ms;
    if (!number_of(PyTuple_GetItem(object, 2), &worth) || !number_of(PyTuple_GetItem(object, 5), &compute_ms)) return 0;
    *whole = (Way){WHOLE, scales->table.width[0].options, worth, 1.0, 1, compute_ms, 0.0};
    return 1;
}

int long_of(PyObject *object, long *number) {
    if (object == NULL) return 0;
    *number = object == Py_None ? -1 : PyLong_AsLong(object);
    return object == Py_None || !(*number == -1 && PyErr_Occurred());
}

int take_kept(const Scales *scales, PyObject *object, Key *kept) {
    *kept = (Key){ACTIONS, -1, -1};
    if (object == Py_None) return 1;
    PyObject *action = PyTuple_GetItem(object, 0);
    if (action == NULL || !long_of(PyTuple_GetItem(object, 1), &kept->mode)) return 0;
    for (int i = 0; i < ACTIONS; i++)
        if (PyUnicode_Compare(action, scales->actions[i]) == 0) kept->action = (Action)i;
    return long_of(PyTuple_GetItem(object, 2), &kept->groups);
}

static int take_cost(PyObject *object, Cost *cost) {
    double of[3];
    if (!numbers_of(object, of, 3)) return 0;
    *cost = (Cost){of[0], of[1], of[2]};
    return 1;
}

/* ---------------------------------------------------------------- what Python gets */

static PyObject *way_of(const Scales *scales, const Way *way) {
    PyObject *action = scales->actions[way->action], *sure = PyBool_FromLong(way->sure);
    PyObject *args = Py_BuildValue("(OOddNdd)", action, way->option->object, way->worth, way->chance, sure,
                                   way->compute_ms, way->bytes);
    PyObject *made = args == NULL ? NULL : PyObject_Call(scales->way_type, args, NULL);
    Py_XDECREF(args);
    return made;
}

/* Find all ways, from the arguments that `all` and `best` have in common; 0 with an exception set. */
static int weigh_all(Scales *scales, PyObject *const *args, Wanted *wanted, double *worth) {
    Way whole = {0};
    Work work = {0};
    Room room = {0};
    int some_whole = args[1] != Py_None;
    if (some_whole && !take_whole(scales, args[1], &whole)) return 0;
    if (!take_work(scales, args[0], args[2], &work) || !take_room(scales, args[3], &room)) return 0;
    if (!take_wanted(args[4], wanted)) return 0;
    *worth = weigh(&scales->table, some_whole ? &whole : NULL, &work, &room, wanted);
    return 1;
}

static PyObject *all(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Scales *scales = (Scales *)object;
    Wanted wanted = {0};
    double worth;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "all takes 5 arguments, not %zd", count);
    if (!weigh_all(scales, args, &wanted, &worth)) return NULL;
    PyObject *ways = PyList_New((Py_ssize_t)scales->table.count);
    for (size_t i = 0; ways != NULL && i < scales->table.count; i++) {
        PyObject *way = way_of(scales, scales->table.ways + i);
        if (way == NULL) Py_CLEAR(ways);
        else PyList_SetItem(ways, (Py_ssize_t)i, way);
    }
    return ways == NULL ? NULL : Py_BuildValue("(Nd)", ways, worth);
}

static PyObject *best(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Scales *scales = (Scales *)object;
    Wanted wanted = {0};
    Key kept = {0};
    Cost cost = {0};
    double worth;
    if (count != 7) return PyErr_Format(PyExc_TypeError, "best takes 7 arguments, not %zd", count);
    int some_cost = args[6] != Py_None;
    if (!take_kept(scales, args[5], &kept) || (some_cost && !take_cost(args[6], &cost))) return NULL;
    if (!weigh_all(scales, args, &wanted, &worth)) return NULL;
    double enough = (worth > wanted.other ? worth : wanted.other) - wanted.slack;
    const Way *found = some_cost ? cheapest(&scales->table, enough, &cost) : NULL;
    if (found == NULL) found = worthiest(&scales->table, some_cost ? &(Key){ACTIONS, -1, -1} : &kept);
    if (found == NULL) found = likeliest(&scales->table, wanted.near);
    return Py_BuildValue("(Nd)", found == NULL ? Py_NewRef(Py_None) : way_of(scales, found), worth);
}

/* ---------------------------------------------------------------- making one */

static int long_attribute(PyObject *object, const char *name, long *number) {
    PyObject *attribute = PyObject_GetAttrString(object, name);
    int ok = long_of(attribute, number);
    Py_XDECREF(attribute);
    return ok;
}

static int double_attribute(PyObject *object, const char *name, double *number) {
    PyObject *attribute = PyObject_GetAttrString(object, name);
    int ok = number_of(attribute, number);
    Py_XDECREF(attribute);
    return ok;
}

static int take_option(PyObject *object, Option *option) {
    option->object = Py_NewRef(object);
    return double_attribute(object, "mean_bytes", &option->bytes) &&
           double_attribute(object, "accuracy", &option->accuracy) && long_attribute(object, "mode", &option->mode) &&
           long_attribute(object, "groups", &option->groups);
}

static int take_options(PyObject *options, Width *width) {
    Py_ssize_t count = PyTuple_Size(options);
    if (count < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a width has no options");
        return 0;
    }
    if ((width->options = calloc((size_t)count, sizeof(Option))) == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        width->count++;
        if (!take_option(PyTuple_GetItem(options, i), width->options + i)) return 0;
    }
    return 1;
}

/* [(number of the width, its options), ...], widest first. */
static int take_table(Scales *scales, PyObject *table) {
    Py_ssize_t count = PyList_Size(table);
    size_t ways = 1;
    if (count < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "there are no widths");
        return 0;
    }
    if ((scales->table.width = calloc((size_t)count, sizeof(Width))) == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        Width *width = scales->table.width + scales->table.widths++;
        PyObject *options;
        if (!PyArg_ParseTuple(PyList_GetItem(table, i), "nO", &width->number, &options)) return 0;
        if (!take_options(options, width)) return 0;
        ways += width->count + 1;
    }
    scales->table.ways = calloc(ways, sizeof(Way));
    return scales->table.ways != NULL || PyErr_NoMemory() != NULL;
}

static PyObject *new_scales(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *way_type, *table;
    if (keywords != NULL && PyDict_Size(keywords) > 0) return PyErr_Format(PyExc_TypeError, "Scales takes no keywords");
    if (!PyArg_ParseTuple(args, "OO", &way_type, &table)) return NULL;
    Scales *scales = (Scales *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (scales == NULL) return NULL;
    scales->way_type = Py_NewRef(way_type);
    scales->margin_type = PyObject_GetAttrString(PyType_GetModule(type), "Margin");
    int ok = scales->margin_type != NULL && take_table(scales, table);
    for (int i = 0; ok && i < ACTIONS; i++) {
        scales->actions[i] = PyUnicode_InternFromString(action_names[i]);
        ok = scales->actions[i] != NULL;
    }
    if (!ok) Py_CLEAR(scales);
    return (PyObject *)scales;
}

static void dealloc(PyObject *object) {
    Scales *scales = (Scales *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t w = 0; w < scales->table.widths; w++) {
        for (size_t i = 0; i < scales->table.width[w].count; i++) Py_XDECREF(scales->table.width[w].options[i].object);
        free(scales->table.width[w].options);
    }
    for (int i = 0; i < ACTIONS; i++) Py_XDECREF(scales->actions[i]);
    Py_XDECREF(scales->way_type);
    Py_XDECREF(scales->margin_type);
    free(scales->table.width);
    free(scales->table.ways);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---------------------------------------------------------------- module */

static PyMethodDef scales_methods[] = {
    {"all", (PyCFunction)(void (*)(void))all, METH_FASTCALL,
     "all(exits, whole, work, room, wanted) -> ([way, ...], worth)"},
    {"best", (PyCFunction)(void (*)(void))best, METH_FASTCALL,
     "best(exits, whole, work, room, wanted, kept, cost) -> (way or None, worth)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scales_slots[] = {
    {Py_tp_doc, "Scales(Way, [(number of the width, options), ...]): what ways.Ways weighs with."},
    {Py_tp_new, new_scales},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, scales_methods},
    {0, NULL},
};

static PyType_Spec scales_spec = {"headwater.device.control._ways.Scales", sizeof(Scales), 0, Py_TPFLAGS_DEFAULT,
                                  scales_slots};

static int add_types(PyObject *module) {
    PyType_Spec *specs[] = {&margin_spec, &scales_spec, &trip_spec, &device_spec, &decisions_spec, &steady_spec};
    const char *names[] = {"Margin", "Scales", "RoundTrip", "DeviceEstimate", "Decisions", "Steady"};
    if (reading_prepare() < 0) return -1;
    for (int i = 0; i < 6; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int added = type == NULL ? -1 : PyModule_AddObjectRef(module, names[i], type);
        Py_XDECREF(type);
        if (added < 0) return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_ways", "The inner arithmetic of the deadline rule", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__ways(void) { return PyModuleDef_Init(&module); }
