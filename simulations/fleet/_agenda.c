/* Events in order of time, those of the same time in the order in which they were put in: agenda.Agenda.
 *
 * One heap of all of them, four children a node: events are 40 bytes that lie side by side, so that a hundred thousand
 * cost little more than a hundred, and no slices are needed as in Python. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <structmember.h>

#define CHILDREN 4

static int before(const Event *one, const Event *other) {
    return one->time_s < other->time_s || (one->time_s == other->time_s && one->number < other->number);
}

int agenda_at(Agenda *agenda, double time_s, Do act, PyObject *owner, PyObject *what) {
    if (time_s == INFINITY) return 0;
    if (agenda->count == agenda->room) {
        size_t room = agenda->room ? 2 * agenda->room : 64;
        Event *heap = realloc(agenda->heap, room * sizeof(Event));
        if (heap == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
        agenda->heap = heap;
        agenda->room = room;
    }
    Event event = {time_s, ++agenda->number, act, Py_NewRef(owner), Py_NewRef(what)}, *heap = agenda->heap;
    size_t at = agenda->count++;
    for (size_t parent; at > 0 && before(&event, heap + (parent = (at - 1) / CHILDREN)); at = parent)
        heap[at] = heap[parent];
    heap[at] = event;
    return 0;
}

/* Put an event where the first one was. */
static void sift(Agenda *agenda, Event event) {
    Event *heap = agenda->heap;
    size_t at = 0, count = agenda->count;
    for (size_t child; (child = CHILDREN * at + 1) < count;) {
        size_t best = child, end = child + CHILDREN < count ? child + CHILDREN : count;
        for (size_t other = child + 1; other < end; other++)
            if (before(heap + other, heap + best)) best = other;
        if (!before(heap + best, &event)) break;
        heap[at] = heap[best];
        at = best;
    }
    heap[at] = event;
}

static Event pop(Agenda *agenda) {
    Event first = agenda->heap[0];
    if (--agenda->count) sift(agenda, agenda->heap[agenda->count]);
    return first;
}

/* ---------------------------------------------------------------- what Python sees */

static int call(PyObject *owner, PyObject *what, double now_s) {
    PyObject *time = PyFloat_FromDouble(now_s);
    PyObject *done = time == NULL ? NULL : PyObject_CallFunctionObjArgs(owner, what, time, NULL);
    Py_XDECREF(time);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *at(PyObject *object, PyObject *args) {
    double time_s;
    PyObject *act, *what;
    if (!PyArg_ParseTuple(args, "dOO", &time_s, &act, &what)) return NULL;
    if (agenda_at((Agenda *)object, time_s, call, act, what) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *run(PyObject *object, PyObject *unused) {
    (void)unused;
    Agenda *agenda = (Agenda *)object;
    while (agenda->count) {
        Event event = pop(agenda);
        agenda->now_s = event.time_s;
        agenda->events++;
        int done = event.act(event.owner, event.what, event.time_s);
        Py_DECREF(event.owner);
        Py_DECREF(event.what);
        if (done < 0 || (agenda->events % 4096 == 0 && PyErr_CheckSignals() < 0)) return NULL;
    }
    Py_RETURN_NONE;
}

static void dealloc(PyObject *object) {
    Agenda *agenda = (Agenda *)object;
    for (size_t i = 0; i < agenda->count; i++) {
        Py_DECREF(agenda->heap[i].owner);
        Py_DECREF(agenda->heap[i].what);
    }
    free(agenda->heap);
    dealloc_with(object, NULL, 0);
}

static PyMethodDef methods[] = {
    {"at", at, METH_VARARGS, "at(time_s, do, what): let do(what, time_s) happen."},
    {"run", run, METH_NOARGS, "Do all that is to be done."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"now_s", T_DOUBLE, offsetof(Agenda, now_s), READONLY, "The time of the event at hand."},
    {"events", T_LONGLONG, offsetof(Agenda, events), READONLY, "Done so far."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See agenda.Agenda."}, {Py_tp_dealloc, dealloc}, {Py_tp_methods, methods},
    {Py_tp_members, members},          {0, NULL},
};

PyType_Spec agenda_spec = {"headwater.simulations.fleet._core.Agenda", sizeof(Agenda), 0, Py_TPFLAGS_DEFAULT, slots};
