/* What the deadline rule does with a picture when nothing is out of the ordinary: rule.Rule in C.
 *
 * It is used while the link is there and known, the most accurate way is wanted, without a budget, and every frame is
 * answered in time. Whatever else comes up, it says so before it has changed anything, and hands over to the Python;
 * that is the reference too, as both have to decide the same. See deadline.DeadlineController. */
#include "_ways.h"

#include <math.h>
#include <stdlib.h>
#include <structmember.h>

#define OVERHEAD_BYTES 80
#define LINK_SHARE 0.9
#define QUEUE_SHARE 0.3
#define ON_TIME 0.02
#define FIRST_TRY 16

/* What was chosen to be sent: ways.Plan. */
typedef struct {
    PyObject *decision; /* NULL: nothing */
    const Width *width;
    const Option *option;
    double compute_ms, bytes;
    Room room;
    long frames;
} Plan;

typedef struct {
    PyObject_HEAD
    RoundTrip *link;
    DeviceEstimate *device;
    Scales *scales; /* of what is offered at the wish; NULL before it is entered */
    Decisions *decisions;
    size_t modes;
    size_t *width_of; /* number of the width, by mode */
    double *exits;    /* of the local exit by number of the width; not a number where there is none */
    double *foretold; /* bytes on the wire that were last reckoned with, by mode */
    double slack, near, hit, least;
    int has_whole;
    long max_groups, max_bytes; /* the wish */
    Key kept;
    double worth, asked, heard_s;
    long same, gap;
    Plan plan;
} Steady;

/* ---------------------------------------------------------------- choosing */

static int is_usual(const Steady *steady, const Asked *asked) {
    int whole = steady->has_whole && !isnan(asked->whole_ms);
    int same_wish = asked->max_groups == steady->max_groups && asked->max_bytes == steady->max_bytes;
    return asked->connected && !whole && same_wish;
}

static double least_of(double one, double other) { return other < one ? other : one; }
static double most_of(double one, double other) { return other > one ? other : one; }

/* ways.steady */
static double steady_bytes(double most_ms, double spare_ms, double byte_ms, double queue_ms) {
    if (byte_ms == 0) return INFINITY;
    if (spare_ms < INFINITY)
        most_ms = most_of(most_ms, (most_ms + QUEUE_SHARE * spare_ms) / (1 + QUEUE_SHARE) - queue_ms);
    return most_ms / byte_ms;
}

static Room room_of(const Steady *steady, const Asked *asked) {
    const RoundTrip *link = steady->link;
    double left_ms = asked->left_ms - (steady->device->code_ms + asked->held_ms);
    double most_ms = LINK_SHARE * asked->interval_ms;
    double base_ms = link->scale * link->line.base_ms + link->server_ms, byte_ms = link->scale * link->line.byte_ms;
    double ahead_bytes = 0.0, ahead_ms = 0.0, oldest_ms = 0.0, beyond = 0.0, queue_ms = 0.0;
    if (asked->frames) {
        ahead_bytes = (double)(asked->bytes + asked->frames * OVERHEAD_BYTES);
        ahead_ms = trip_queue_ms(link, ahead_bytes);
        oldest_ms = trip_begun_ms(link, asked->oldest_ms, asked->time_s);
        beyond = trip_overdue(link, ahead_bytes / (double)asked->frames, oldest_ms);
        queue_ms = most_of(ahead_ms - oldest_ms, 0.0);
    }
    double most_bytes = steady_bytes(most_ms, left_ms - base_ms, byte_ms, queue_ms);
    Fear fear = trip_fear(link, ahead_bytes, (double)asked->frames, oldest_ms, asked->interval_ms);
    return (Room){left_ms, base_ms, byte_ms, ahead_ms, oldest_ms, most_bytes, beyond, link->margin, fear};
}

static const Way *best_way(Steady *steady, const Asked *asked, const Room *room, double *worth) {
    const DeviceEstimate *device = steady->device;
    Table *table = &steady->scales->table;
    double wider_ms =
        device->ran ? least_of(asked->left_ms / device->margin->upper, asked->interval_ms) : -1.0;
    const Work work = {asked->left_ms, wider_ms, device->prepare_ms, device->factor};
    const Wanted wanted = {steady->asked, steady->slack, steady->near, INFINITY, INFINITY, 1.0, 0.0};
    for (Width *width = table->width; width < table->width + table->widths; width++) {
        width->local = asked->exit_available ? steady->exits[width->number] : NAN;
        width->head_ms = device->pace[width->number].head_ms;
    }
    *worth = weigh(table, NULL, &work, room, &wanted);
    const Way *best = worthiest(table, &steady->kept);
    return best != NULL ? best : likeliest(table, steady->near);
}

/* Whether a larger frame may be worth trying, which Python has to say: rule.Rule._larger, but for what it rules out. */
static int may_try(const Steady *steady, const Way *best) {
    const Table *table = &steady->scales->table;
    double enough = best->worth + steady->slack, better = best->option->accuracy + steady->slack;
    if (steady->same < steady->gap || steady->link->odds) return 0;
    for (const Width *width = table->width; width < table->width + table->widths; width++) {
        int own = best->option >= width->options && best->option < width->options + width->count;
        for (const Option *option = width->options; option < width->options + width->count; option++) {
            if (option->bytes > best->option->bytes && option->accuracy > enough) return 1;
            if (own && !steady->link->line.told && option->bytes > best->bytes && option->accuracy > better) return 1;
        }
    }
    return 0;
}

static const Width *width_with(const Table *table, const Option *option) {
    const Width *width = table->width;
    while (option < width->options || option >= width->options + width->count) width++;
    return width;
}

static void keep_to(Steady *steady, const Way *way) {
    Key *kept = &steady->kept;
    if (kept->action == way->action && kept->mode == way->option->mode && kept->groups == way->option->groups) {
        steady->same++;
        return;
    }
    *kept = (Key){way->action, way->option->mode, way->option->groups};
    steady->same = 0;
    steady->gap = FIRST_TRY;
}

static PyObject *choose(PyObject *object, PyObject *situation) {
    Steady *steady = (Steady *)object;
    Asked asked;
    double worth;
    if (read_situation(situation, &asked) < 0) return NULL;
    if (!is_usual(steady, &asked)) Py_RETURN_NONE;
    const Room room = room_of(steady, &asked);
    const Way *best = best_way(steady, &asked, &room, &worth);
    if (best == NULL || best->action != SEND || may_try(steady, best)) Py_RETURN_NONE;
    double chance = room.left_ms < INFINITY ? best->chance : NAN;
    PyObject *decision = decision_to_send(steady->decisions, best->option, chance);
    if (decision == NULL) return NULL;
    keep_to(steady, best);
    steady->worth = worth;
    steady->foretold[best->option->mode] = best->bytes;
    Py_XDECREF(steady->plan.decision);
    steady->plan = (Plan){Py_NewRef(decision), width_with(&steady->scales->table, best->option), best->option,
                          best->compute_ms, best->bytes, room, asked.frames};
    return decision;
}

/* ---------------------------------------------------------------- after the head */

/* ways.Plan.holds */
static int holds(const Plan *plan, const Asked *asked, double left_ms) {
    double planned_ms = plan->room.left_ms - plan->compute_ms;
    if (asked->frames != plan->frames || asked->held_ms != 0) return 0;
    return (1 - ON_TIME) * planned_ms <= left_ms && left_ms <= (1 + ON_TIME) * planned_ms;
}

static double longest(const Room *room, double left_ms, double share) {
    double most_ms = left_ms * share;
    if (room->ahead_ms != 0)
        most_ms = least_of(most_ms, (room->left_ms + room->oldest_ms) * share - room->ahead_ms);
    return (most_ms - room->base_ms) / room->byte_ms;
}

/* Room.most_bytes, without what every frame has beside its own. */
static double most_bytes(const Plan *plan, double upper) {
    const Room *room = &plan->room;
    if (room->left_ms == INFINITY || room->byte_ms == 0) return INFINITY;
    double left_ms = room->left_ms - plan->compute_ms, surely = longest(room, left_ms, 1 / upper);
    return (plan->bytes <= surely ? surely : longest(room, left_ms, 1.0)) - OVERHEAD_BYTES;
}

static PyObject *refine(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Steady *steady = (Steady *)object;
    const Plan *plan = &steady->plan;
    Asked asked;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "refine takes 2 arguments, not %zd", count);
    if (plan->decision != args[0]) Py_RETURN_NONE;
    if (read_situation(args[1], &asked) < 0) return NULL;
    if (!is_usual(steady, &asked)) Py_RETURN_NONE;
    if (!holds(plan, &asked, asked.left_ms - steady->device->code_ms)) Py_RETURN_NONE;
    double local = asked.exit_available ? steady->exits[plan->width->number] : NAN;
    const Option *smallest = plan->width->options;
    if (plan->option == smallest || plan->option[-1].accuracy <= (isnan(local) ? 0.0 : local))
        return Py_NewRef(args[0]); /* a shorter one is of no use */
    double most = most_bytes(plan, steady->link->margin->upper);
    if (most == INFINITY) return Py_NewRef(args[0]);
    return decision_with_most(steady->decisions, plan->option, args[0], most < 1 ? 1.0 : trunc(most));
}

/* ---------------------------------------------------------------- after an answer */

static PyObject *observe(PyObject *object, PyObject *observation) {
    Steady *steady = (Steady *)object;
    Seen seen;
    int usual = read_observation(observation, steady->modes, &seen);
    if (usual <= 0) return usual < 0 ? NULL : Py_NewRef(Py_False);
    Py_CLEAR(steady->plan.decision);
    if (seen.head_ms > 0) {
        size_t number = steady->width_of[seen.mode];
        device_ran(steady->device, number, seen.prepare_ms, seen.head_ms + seen.exit_ms, seen.time_s);
        if (seen.code_ms > 0) device_coded(steady->device, seen.code_ms);
    }
    steady->asked = least_of(most_of(steady->asked + steady->hit, steady->least), 1.0);
    double server_ms = least_of(seen.server_ms, seen.round_trip_ms);
    trip_answered(steady->link, (double)(seen.size + OVERHEAD_BYTES), steady->foretold[seen.mode], seen.ahead > 0,
                  seen.round_trip_ms - server_ms, server_ms, seen.time_s);
    steady->heard_s = seen.time_s;
    Py_RETURN_TRUE;
}

/* ---------------------------------------------------------------- going in and out */

static int take_foretold(Steady *steady, PyObject *foretold) {
    for (size_t i = 0; i < steady->modes; i++) {
        PyObject *bytes = PySequence_GetItem(foretold, (Py_ssize_t)i);
        steady->foretold[i] = bytes == NULL ? 0.0 : PyFloat_AsDouble(bytes);
        Py_XDECREF(bytes);
        if (PyErr_Occurred()) return -1;
    }
    return 0;
}

static PyObject *enter(PyObject *object, PyObject *args) {
    Steady *steady = (Steady *)object;
    PyObject *scales, *max_groups, *max_bytes, *kept, *foretold;
    if (!PyArg_ParseTuple(args, "O(OO)Odd(ll)O", &scales, &max_groups, &max_bytes, &kept, &steady->worth,
                          &steady->asked, &steady->same, &steady->gap, &foretold))
        return NULL;
    if (!long_of(max_groups, &steady->max_groups) || !long_of(max_bytes, &steady->max_bytes)) return NULL;
    Py_CLEAR(steady->plan.decision);
    if ((PyObject *)steady->scales != scales) {
        Py_XDECREF((PyObject *)steady->scales);
        steady->scales = (Scales *)Py_NewRef(scales);
    }
    if (!take_kept(steady->scales, kept, &steady->kept) || take_foretold(steady, foretold) < 0) return NULL;
    steady->heard_s = NAN;
    Py_RETURN_NONE;
}

static PyObject *key_of(const Steady *steady) {
    const Key *kept = &steady->kept;
    if (kept->action == ACTIONS) Py_RETURN_NONE;
    PyObject *action = steady->scales->actions[kept->action];
    return kept->groups < 0 ? Py_BuildValue("(OlO)", action, kept->mode, Py_None)
                            : Py_BuildValue("(Oll)", action, kept->mode, kept->groups);
}

static PyObject *leave(PyObject *object, PyObject *unused) {
    (void)unused;
    Steady *steady = (Steady *)object;
    PyObject *foretold = PyList_New((Py_ssize_t)steady->modes);
    for (size_t i = 0; foretold != NULL && i < steady->modes; i++)
        PyList_SetItem(foretold, (Py_ssize_t)i, PyFloat_FromDouble(steady->foretold[i]));
    Py_CLEAR(steady->plan.decision);
    return Py_BuildValue("(Ndd(ll)Nd)", key_of(steady), steady->worth, steady->asked, steady->same, steady->gap,
                         foretold, steady->heard_s);
}

/* ---------------------------------------------------------------- making one */

static int take_modes(Steady *steady, PyObject *width_of, PyObject *exits) {
    Py_ssize_t modes = PyTuple_Size(width_of), widths = PyTuple_Size(exits);
    if (modes < 0 || widths < 0) return -1;
    steady->modes = (size_t)modes;
    steady->width_of = calloc(steady->modes + 1, sizeof(size_t));
    steady->foretold = calloc(steady->modes + 1, sizeof(double));
    steady->exits = calloc((size_t)widths + 1, sizeof(double));
    if (!steady->width_of || !steady->foretold || !steady->exits)
        return PyErr_NoMemory() == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < modes; i++) steady->width_of[i] = PyLong_AsSize_t(PyTuple_GetItem(width_of, i));
    for (Py_ssize_t i = 0; i < widths; i++) {
        PyObject *exit = PyTuple_GetItem(exits, i);
        steady->exits[i] = exit == Py_None ? NAN : PyFloat_AsDouble(exit);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    Steady *steady = (Steady *)object;
    PyObject *link, *device, *width_of, *exits, *decisions;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Steady takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOOO!O!(dddd)p", &link, &device, &decisions, &PyTuple_Type, &width_of, &PyTuple_Type,
                          &exits, &steady->slack, &steady->near, &steady->hit, &steady->least, &steady->has_whole))
        return -1;
    steady->decisions = (Decisions *)Py_NewRef(decisions);
    steady->link = (RoundTrip *)Py_NewRef(link);
    steady->device = (DeviceEstimate *)Py_NewRef(device);
    return take_modes(steady, width_of, exits);
}

static void dealloc(PyObject *object) {
    Steady *steady = (Steady *)object;
    Py_XDECREF((PyObject *)steady->link);
    Py_XDECREF((PyObject *)steady->device);
    Py_XDECREF((PyObject *)steady->scales);
    Py_XDECREF((PyObject *)steady->decisions);
    Py_XDECREF(steady->plan.decision);
    free(steady->width_of);
    free(steady->foretold);
    free(steady->exits);
    dealloc_plain(object);
}

static PyMethodDef methods[] = {
    {"choose", choose, METH_O, "choose(situation) -> Decision, or None where Python has to choose"},
    {"refine", (PyCFunction)(void (*)(void))refine, METH_FASTCALL, "refine(decision, situation) -> Decision or None"},
    {"observe", observe, METH_O, "observe(observation) -> whether it was learnt"},
    {"enter", enter, METH_VARARGS, "enter(scales, wish, kept, worth, asked, (same, gap), foretold)"},
    {"leave", leave, METH_NOARGS, "leave() -> (kept, worth, asked, (same, gap), foretold, heard_s)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Steady(link, device, decisions, width_of, exits, (slack, near, hit, least), has_whole)"},
    {Py_tp_init, init},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec steady_spec = {"headwater.device.control._ways.Steady", sizeof(Steady), 0, Py_TPFLAGS_DEFAULT, slots};
