/* The ways to answer a picture and the best of them: ways.Ways.best as a C type; _ways.h has why. */
#include "_ways.h"

#include <math.h>
#include <stdlib.h>

typedef enum { LOCAL, SEND, WHOLE, ACTIONS } Action;
static const char *const action_names[ACTIONS] = {"local", "send", "whole"};

/* One frame that may be sent: options.Option. */
typedef struct {
    double bytes, accuracy;
    long mode, groups; /* groups: -1 for all */
    PyObject *object;
} Option;

/* A width: its number, its options from the smallest to the largest, and of the picture at hand what the local exit is
 * worth, not a number where it cannot answer, and what head and exit take. */
typedef struct {
    Py_ssize_t number;
    size_t count;
    Option *options;
    double local, head_ms;
} Width;

/* One way: ways.Way. */
typedef struct {
    Action action;
    const Option *option;
    double worth, chance;
    int sure;
    double compute_ms, bytes;
} Way;

typedef struct {
    double left_ms, base_ms, byte_ms, ahead_ms, oldest_ms, steady_bytes, beyond;
    const Margin *margin; /* NULL: there is no room */
} Room;

typedef struct {
    double left_ms, wider_ms, prepare_ms, factor;
} Work;

typedef struct {
    double level, slack, near, affordable, each, doubt, other;
} Wanted;

typedef struct {
    double per_ms, per_frame, per_byte;
} Cost;

/* What was done last. */
typedef struct {
    Action action; /* ACTIONS: nothing yet */
    long mode, groups;
} Key;

typedef struct {
    PyObject_HEAD
    PyObject *margin_type, *way_type, *actions[ACTIONS];
    size_t widths; /* widest first */
    Width *width;
    Way *ways; /* with room for all that there can be */
    size_t count;
} Scales;

/* ---------------------------------------------------------------- every way */

static void add_way(Scales *scales, Way way) { scales->ways[scales->count++] = way; }

/* The chance that a frame of an option is in time, from how many times the middling time there is for it. */
static double chance_of(const Room *room, const Option *option, double left_ms) {
    double own_ms = room->base_ms + room->byte_ms * option->bytes, times = left_ms / own_ms;
    if (room->ahead_ms != 0) {
        double together = (room->left_ms + room->oldest_ms) / (own_ms + room->ahead_ms);
        if (together < times) times = together;
    }
    return margin_chance(room->margin, times, room->beyond);
}

/* As ways._sends. */
static double add_sends(Scales *scales, const Width *width, const Room *room, const Wanted *wanted,
                        const Option *smallest, double best, double compute_ms) {
    int alone = isnan(width->local);
    double instead = alone ? 0.0 : width->local, least = alone ? wanted->level : HOPELESS;
    double left_ms = room->left_ms - compute_ms;
    if (left_ms <= 0) return best;
    for (size_t i = width->count; i-- > 0;) {
        const Option *option = width->options + i;
        double bytes = option->bytes, gain = wanted->doubt * (option->accuracy - instead);
        if (gain <= 0 || instead + gain < best - wanted->slack) break;
        if (bytes > wanted->affordable || (bytes > room->steady_bytes && option != smallest)) continue;
        if (bytes > wanted->each) {
            gain *= wanted->each / bytes;
            if (instead + gain < best - wanted->slack) continue;
        }
        double chance = chance_of(room, option, left_ms);
        double worth = alone ? gain : width->local + chance * gain;
        int sure = chance >= least;
        if (sure && worth > best) best = worth;
        add_way(scales, (Way){SEND, option, worth, chance, sure, compute_ms, bytes});
    }
    return best;
}

/* As ways.Ways.all, into scales->ways; what the best of the sure is worth. */
static double weigh(Scales *scales, const Way *whole, const Work *work, const Room *room, const Wanted *wanted) {
    const Width *narrowest = scales->width + scales->widths - 1;
    double best = 0.0;
    scales->count = 0;
    if (whole != NULL) {
        add_way(scales, *whole);
        best = whole->worth;
    }
    for (const Width *width = scales->width; width <= narrowest; width++) {
        double local = isnan(width->local) ? 0.0 : width->local, most = width->options[width->count - 1].accuracy;
        if ((local > most ? local : most) < best - wanted->slack) continue;
        double device_ms = (work->prepare_ms + width->head_ms) * work->factor;
        if (device_ms > (width == narrowest ? work->left_ms : work->wider_ms)) continue;
        if (width->local >= best - wanted->slack) {
            add_way(scales, (Way){LOCAL, width->options, width->local, 1.0, 1, device_ms, 0.0});
            if (width->local > best) best = width->local;
        }
        if (room->margin != NULL)
            best = add_sends(scales, width, room, wanted, narrowest->options, best, device_ms);
    }
    return best;
}

/* ---------------------------------------------------------------- which of them */

static const Way *worthiest(const Scales *scales, const Key *kept) {
    const Way *best = NULL, *same = NULL;
    for (const Way *way = scales->ways; way < scales->ways + scales->count; way++) {
        if (!way->sure) continue;
        if (best == NULL || way->worth > best->worth || (way->worth == best->worth && way->bytes <= best->bytes)) best = way;
        int is_kept = way->action == kept->action && way->option->mode == kept->mode && way->option->groups == kept->groups;
        if (is_kept && way->chance >= STEADY) same = way;
    }
    return same != NULL && same->worth >= best->worth - NOISE ? same : best;
}

static const Way *cheapest(const Scales *scales, double enough, const Cost *cost) {
    const Way *best = NULL;
    double least = INFINITY;
    for (const Way *way = scales->ways; way < scales->ways + scales->count; way++) {
        if (!way->sure || way->worth < enough) continue;
        double costs = cost->per_ms * way->compute_ms;
        if (way->bytes != 0) costs += cost->per_frame + cost->per_byte * way->bytes;
        if (best == NULL || costs < least || (costs == least && way->worth > best->worth)) {
            best = way;
            least = costs;
        }
    }
    return best;
}

static const Way *likeliest(const Scales *scales, double within) {
    const Way *best = NULL;
    double chance = 0.0, most = 0.0;
    for (size_t i = 0; i < scales->count; i++)
        if (scales->ways[i].chance > chance) chance = scales->ways[i].chance;
    if (chance < HOPELESS) return NULL;
    for (const Way *way = scales->ways; way < scales->ways + scales->count; way++) {
        double right = way->chance * way->worth;
        if (way->chance < chance - within) continue;
        if (best == NULL || right > most || (right == most && way->bytes < best->bytes)) {
            best = way;
            most = right;
        }
    }
    return best;
}

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
    for (size_t i = 0; i < scales->widths; i++) {
        Width *width = scales->width + i;
        PyObject *exit = PyTuple_GetItem(exits, width->number);
        if (exit == NULL || !number_of(PyList_GetItem(heads_ms, width->number), &width->head_ms)) return 0;
        if (exit == Py_None) width->local = NAN;
        else if (!number_of(exit, &width->local)) return 0;
    }
    return 1;
}

static int take_room(const Scales *scales, PyObject *object, Room *room) {
    double of[7];
    room->margin = NULL;
    if (object == Py_None) return 1;
    PyObject *margin = PyTuple_GetItem(object, 7);
    if (margin == NULL || !numbers_of(object, of, 7)) return 0;
    if ((PyObject *)Py_TYPE(margin) != scales->margin_type) {
        PyErr_SetString(PyExc_TypeError, "the room's margin is not the compiled one");
        return 0;
    }
    *room = (Room){of[0], of[1], of[2], of[3], of[4], of[5], of[6], (const Margin *)margin};
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
    *whole = (Way){WHOLE, scales->width[0].options, worth, 1.0, 1, compute_ms, 0.0};
    return 1;
}

/* A number, or -1 for None. */
static int long_of(PyObject *object, long *number) {
    if (object == NULL) return 0;
    *number = object == Py_None ? -1 : PyLong_AsLong(object);
    return object == Py_None || !(*number == -1 && PyErr_Occurred());
}

static int take_kept(const Scales *scales, PyObject *object, Key *kept) {
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
    PyObject *args = Py_BuildValue("(OOddNdd)", scales->actions[way->action], way->option->object, way->worth, way->chance,
                                   PyBool_FromLong(way->sure), way->compute_ms, way->bytes);
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
    *worth = weigh(scales, some_whole ? &whole : NULL, &work, &room, wanted);
    return 1;
}

static PyObject *all(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Scales *scales = (Scales *)object;
    Wanted wanted = {0};
    double worth;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "all takes 5 arguments, not %zd", count);
    if (!weigh_all(scales, args, &wanted, &worth)) return NULL;
    PyObject *ways = PyList_New((Py_ssize_t)scales->count);
    for (size_t i = 0; ways != NULL && i < scales->count; i++) {
        PyObject *way = way_of(scales, scales->ways + i);
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
    const Way *found = some_cost ? cheapest(scales, enough, &cost) : NULL;
    if (found == NULL) found = worthiest(scales, some_cost ? &(Key){ACTIONS, -1, -1} : &kept);
    if (found == NULL) found = likeliest(scales, wanted.near);
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
    if ((scales->width = calloc((size_t)count, sizeof(Width))) == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        Width *width = scales->width + scales->widths++;
        PyObject *options;
        if (!PyArg_ParseTuple(PyList_GetItem(table, i), "nO", &width->number, &options)) return 0;
        if (!take_options(options, width)) return 0;
        ways += width->count + 1;
    }
    scales->ways = calloc(ways, sizeof(Way));
    return scales->ways != NULL || PyErr_NoMemory() != NULL;
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
    for (int i = 0; ok && i < ACTIONS; i++) ok = (scales->actions[i] = PyUnicode_InternFromString(action_names[i])) != NULL;
    if (!ok) Py_CLEAR(scales);
    return (PyObject *)scales;
}

static void dealloc(PyObject *object) {
    Scales *scales = (Scales *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t w = 0; w < scales->widths; w++) {
        for (size_t i = 0; i < scales->width[w].count; i++) Py_XDECREF(scales->width[w].options[i].object);
        free(scales->width[w].options);
    }
    for (int i = 0; i < ACTIONS; i++) Py_XDECREF(scales->actions[i]);
    Py_XDECREF(scales->way_type);
    Py_XDECREF(scales->margin_type);
    free(scales->width);
    free(scales->ways);
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

static PyType_Spec scales_spec = {"headwater.device._ways.Scales", sizeof(Scales), 0, Py_TPFLAGS_DEFAULT, scales_slots};

static int add_types(PyObject *module) {
    PyType_Spec *specs[] = {&margin_spec, &scales_spec};
    const char *names[] = {"Margin", "Scales"};
    for (int i = 0; i < 2; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int added = type == NULL ? -1 : PyModule_AddObjectRef(module, names[i], type);
        Py_XDECREF(type);
        if (added < 0) return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_ways", "The inner arithmetic of the deadline rule; see ways.py", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__ways(void) { return PyModuleDef_Init(&module); }
