/* What all parts share, and the module. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

Names names;
PyTypeObject *flight_type, *ticket_type, *road_type;
double normal[4096];

/* ---------------------------------------------------------------- chance.py */

uint64_t draw(uint64_t key, int64_t number) {
    uint64_t z = key + (uint64_t)number * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double share(uint64_t key, int64_t number) { return (double)(draw(key, number) >> 11) * 0x1p-53; }

/* ---------------------------------------------------------------- objects */

PyObject *alloc(PyTypeObject *type) { return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); }

void dealloc_with(PyObject *object, PyObject **owned[], size_t count) {
    PyTypeObject *type = Py_TYPE(object);
    for (size_t i = 0; i < count; i++) Py_CLEAR(*owned[i]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

int double_of(PyObject *object, double *number) {
    if (object == NULL) return -1;
    *number = object == Py_None ? NAN : PyFloat_AsDouble(object);
    Py_DECREF(object);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

int long_of(PyObject *object, long *number) {
    if (object == NULL) return -1;
    *number = object == Py_None ? -1 : PyLong_AsLong(object);
    Py_DECREF(object);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

int double_attribute(PyObject *object, const char *name, double *number) {
    return double_of(PyObject_GetAttrString(object, name), number);
}

static int take_doubles(PyObject *list, double **numbers, Py_ssize_t *count) {
    *count = PySequence_Size(list);
    if (*count < 0) return -1;
    if ((*numbers = calloc((size_t)*count + 1, sizeof(double))) == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < *count; i++)
        if (double_of(PySequence_GetItem(list, i), *numbers + i) < 0) return -1;
    return 0;
}

int doubles_attribute(PyObject *object, const char *name, double **numbers, Py_ssize_t *count) {
    PyObject *list = PyObject_GetAttrString(object, name);
    int done = list == NULL ? -1 : take_doubles(list, numbers, count);
    Py_XDECREF(list);
    return done;
}

/* ---------------------------------------------------------------- a model */

static int take_lists(Model *of, PyObject *tables) {
    const char *of_modes[] = {"head_ms",    "mean_bytes", "sigma",       "below",
                              "right",      "sure_above", "sure_right",  "unsure_right"};
    double **to[] = {&of->head_ms, &of->mean_bytes, &of->sigma,      &of->below,
                     &of->right,   &of->sure_above, &of->sure_right, &of->unsure_right};
    for (int i = 0; i < 8; i++) {
        Py_ssize_t count;
        if (doubles_attribute(tables, of_modes[i], to[i], &count) < 0) return -1;
        if (i == 0) of->modes = count;
        if (count == of->modes) continue;
        PyErr_Format(PyExc_ValueError, "%s has %zd numbers for %zd modes", of_modes[i], count, of->modes);
        return -1;
    }
    return 0;
}

static int take_cuts(Model *of, PyObject *tables) {
    Py_ssize_t bytes, right, want = of->modes * (of->most_groups + 1);
    if (doubles_attribute(tables, "cut_bytes", &of->cut_bytes, &bytes) < 0) return -1;
    if (doubles_attribute(tables, "cut_right", &of->cut_right, &right) < 0) return -1;
    if (bytes == want && right == want) return 0;
    PyErr_Format(PyExc_ValueError, "cuts have %zd and %zd numbers; want %zd", bytes, right, want);
    return -1;
}

int take_model(Model *of, PyObject *tables) {
    const char *scalars[] = {"whole_right", "give_up_s", "prepare_ms", "exit_ms", "code_ms", "whole_ms", "spread"};
    double *to[] = {&of->whole_right, &of->give_up_s, &of->prepare_ms, &of->exit_ms,
                    &of->code_ms,     &of->whole_ms,  &of->spread};
    double local, most_groups;
    if (take_lists(of, tables) < 0) return -1;
    for (int i = 0; i < 7; i++)
        if (double_attribute(tables, scalars[i], to[i]) < 0) return -1;
    if (double_attribute(tables, "local", &local) < 0 || double_attribute(tables, "most_groups", &most_groups) < 0)
        return -1;
    of->local = local != 0;
    of->most_groups = (Py_ssize_t)most_groups;
    return take_cuts(of, tables);
}

void forget_model(Model *of) {
    double *owned[] = {of->head_ms,   of->mean_bytes, of->sigma,      of->below,     of->right,
                       of->cut_bytes, of->cut_right,  of->sure_above, of->sure_right, of->unsure_right};
    for (size_t i = 0; i < sizeof(owned) / sizeof(*owned); i++) free(owned[i]);
}

/* ---------------------------------------------------------------- module */

static PyObject *prepare(PyObject *module, PyObject *table) {
    (void)module;
    double *numbers = NULL;
    Py_ssize_t count;
    int done = take_doubles(table, &numbers, &count);
    if (done == 0 && count != 4096) {
        PyErr_Format(PyExc_ValueError, "the normal distribution has %zd numbers; want 4096", count);
        done = -1;
    }
    if (done == 0) memcpy(normal, numbers, sizeof(normal));
    free(numbers);
    if (done < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"prepare", prepare, METH_O, "prepare(chance.NORMAL): once, before anything else."},
    {NULL, NULL, 0, NULL},
};

#define NAME(word) {&names.word, #word}

static int make_names(void) {
    const struct {
        PyObject **to;
        const char *word;
    } all[] = {
        NAME(choose), NAME(refine), NAME(observe), NAME(send), NAME(local), NAME(whole), NAME(skip), NAME(mode),
        NAME(groups), NAME(action), NAME(most_bytes), NAME(answered), NAME(follow), NAME(after), NAME(moment),
        NAME(up), NAME(down), NAME(loss), NAME(outcome), NAME(retry_after_s), NAME(waiting), NAME(running),
        NAME(age_ms), NAME(time_s), NAME(connected), NAME(held_ms), NAME(frames_unanswered), NAME(bytes_unanswered),
        NAME(oldest_ms), NAME(silent_ms), NAME(sent_bytes), NAME(prepare_ms), NAME(head_ms), NAME(code_ms),
        NAME(attempts), NAME(round_trip_ms), NAME(server_ms), NAME(batch), NAME(bytes_ahead), NAME(exit_ms),
        NAME(waited_ms), NAME(confidence), NAME(sent), NAME(late), NAME(expired), NAME(skipped), NAME(gain),
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if ((*all[i].to = PyUnicode_InternFromString(all[i].word)) == NULL) return -1;
    return 0;
}

static int add_types(PyObject *module) {
    const struct {
        PyType_Spec *spec;
        const char *name;
        PyTypeObject **to;
    } all[] = {
        {&agenda_spec, "Agenda", NULL},   {&line_spec, "Line", NULL},           {&used_spec, "Used", NULL},
        {&road_spec, "Road", &road_type}, {&tally_spec, "Tally", NULL},         {&station_spec, "Station", NULL},
        {&device_spec, "Device", NULL},   {&flight_spec, "Flight", &flight_type}, {&crew_spec, "Crew", NULL},
        {&ticket_spec, "Ticket", &ticket_type},
    };
    if (make_names() < 0) return -1;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, all[i].spec, NULL);
        if (type == NULL || PyModule_AddObjectRef(module, all[i].name, type) < 0) return -1;
        if (all[i].to != NULL) *all[i].to = (PyTypeObject *)Py_NewRef(type);
        Py_DECREF(type);
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_core", "The simulation of a fleet's traffic, compiled", 0, functions, slots, NULL, NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module); }
