/* The devices of a class: pictures, and what the device does with them: the first half of crew.Crew. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#define LEAST_PACE 0.5
#define UNIT (1.0 / 65536)

/* ---------------------------------------------------------------- pictures */

static int picture(PyObject *owner, PyObject *what, double now_s);
static int start(Crew *crew, Device *device, double taken_s, uint64_t luck, double now_s);

static int ask_clock(const Crew *crew, PyObject *method, double base_s, double luck, double *time_s) {
    PyObject *base = PyFloat_FromDouble(base_s), *chance = PyFloat_FromDouble(luck), *said = NULL;
    if (base != NULL && chance != NULL) said = PyObject_CallMethodObjArgs(crew->clock, method, base, chance, NULL);
    Py_XDECREF(base);
    Py_XDECREF(chance);
    return double_of(said, time_s);
}

static int expect(Crew *crew, Device *device, double luck) {
    double taken_s;
    if (ask_clock(crew, names.moment, device->base_s, luck, &taken_s) < 0) return -1;
    if (!(taken_s < crew->end_s)) return 0;
    double now_s = crew->agenda->now_s;
    return agenda_at(crew->agenda, taken_s > now_s ? taken_s : now_s, picture, (PyObject *)crew, (PyObject *)device);
}

static int next_picture(Crew *crew, Device *device, uint64_t luck) {
    if (crew->simple) {
        device->base_s += crew->interval_s;
        if (!(device->base_s < crew->end_s)) return 0;
        return agenda_at(crew->agenda, device->base_s, picture, (PyObject *)crew, (PyObject *)device);
    }
    double chance = (double)(luck >> 36 & 0xFFFF) * UNIT;
    if (device->burst_left) {
        device->burst_left--;
        device->base_s += crew->interval_s;
    } else {
        device->burst_left = crew->burst;
        if (ask_clock(crew, names.after, device->base_s, chance, &device->base_s) < 0) return -1;
    }
    return expect(crew, device, chance);
}

static void see(Crew *crew, Device *device, double now_s, uint64_t luck) {
    double gap_s = now_s - device->taken_s;
    device->taken_s = now_s;
    if (gap_s != crew->gap_s) {
        crew->gap_s = gap_s;
        crew->rho = crew->content_s != 0 ? exp(-gap_s / crew->content_s) : 0.0;
        crew->rest = sqrt(1 - crew->rho * crew->rho);
    }
    device->richness = crew->rho * device->richness + crew->rest * normal[luck & 4095];
    device->ease = crew->rho * device->ease + crew->rest * normal[luck >> 12 & 4095];
}

static int drop(Crew *crew, double taken_s) {
    crew->tally->dropped++;
    return tally_missed(crew->tally, taken_s);
}

/* The device is done with the picture before. */
static int freed(PyObject *owner, PyObject *what, double now_s) {
    Device *device = (Device *)what;
    if (!device->waits) return 0;
    device->waits = 0;
    return start((Crew *)owner, device, device->waiting_s, device->waiting_luck, now_s);
}

static int let_wait(Crew *crew, Device *device, double now_s, uint64_t luck) {
    if (device->waits) {
        if (drop(crew, device->waiting_s) < 0) return -1;
    } else if (agenda_at(crew->agenda, device->free_s, freed, (PyObject *)crew, (PyObject *)device) < 0) {
        return -1;
    }
    device->waits = 1;
    device->waiting_s = now_s;
    device->waiting_luck = luck;
    return 0;
}

static int picture(PyObject *owner, PyObject *what, double now_s) {
    Crew *crew = (Crew *)owner;
    Device *device = (Device *)what;
    uint64_t luck = draw(device->key, device->number++);
    if (tally_taken(crew->tally, now_s) < 0 || next_picture(crew, device, luck) < 0) return -1;
    see(crew, device, now_s, luck);
    return device->free_s <= now_s ? start(crew, device, now_s, luck, now_s) : let_wait(crew, device, now_s, luck);
}

/* ---------------------------------------------------------------- on the device */

/* Seconds that the device works until it can refine, or has its own answer. */
static double work(const Crew *crew, const Device *device, Flight *flight, const Said *said) {
    const Model *of = &crew->of;
    double pace = 1 + of->spread * normal[flight->luck >> 24 & 4095];
    pace = device->pace * (LEAST_PACE > pace ? LEAST_PACE : pace);
    if (crew->slow_share != 0 && (double)(flight->luck >> 52) < crew->slow_share * 4096) pace *= crew->slow_times;
    flight->prepare_ms = of->prepare_ms * pace;
    crew->tally->prepare_s += flight->prepare_ms * 1e-3;
    if (said->action == WHOLE) {
        flight->head_ms = of->whole_ms * pace;
        crew->tally->whole_s += flight->head_ms * 1e-3;
    } else {
        flight->head_ms = of->head_ms[said->mode] * pace;
        crew->tally->head_s += flight->head_ms * 1e-3;
        if (of->local) {
            flight->exit_ms = of->exit_ms * pace;
            flight->confidence = device->ease;
            crew->tally->exit_s += flight->exit_ms * 1e-3;
        }
    }
    flight->code_ms = of->code_ms * pace;
    return (flight->prepare_ms + flight->head_ms + flight->exit_ms) / 1e3;
}

static int done_here(Crew *crew, Device *device, const Flight *flight, long mode, double now_s, PyObject *fate) {
    device->free_s = now_s;
    return tell_here(crew, device, mode, fate, now_s, flight);
}

static int answer_here(Crew *crew, Device *device, const Flight *flight, long mode, double now_s, double right) {
    crew->tally->exit++;
    if (tally_here(crew->tally, flight->taken_s, now_s, right) < 0) return -1;
    return done_here(crew, device, flight, mode, now_s, names.local);
}

/* The controller chose so before anything ran. */
static int here(Crew *crew, Device *device, const Flight *flight, const Said *said, double now_s) {
    const Model *of = &crew->of;
    if (said->action == WHOLE) {
        crew->tally->whole++;
        if (tally_here(crew->tally, flight->taken_s, now_s, of->whole_right) < 0) return -1;
        return done_here(crew, device, flight, said->mode, now_s, names.whole);
    }
    if (!of->local) {
        PyErr_SetString(PyExc_AssertionError, "the controller chose the local exit, which the device has not");
        return -1;
    }
    int sure = device->ease > of->sure_above[said->mode];
    double right = sure ? of->sure_right[said->mode] : of->unsure_right[said->mode];
    return answer_here(crew, device, flight, said->mode, now_s, right);
}

static int refined(Crew *crew, Device *device, Flight *flight, Said *said, double now_s) {
    const Model *of = &crew->of;
    if (of->local && device->ease > of->sure_above[said->mode]) {
        crew->tally->sure++;
        return answer_here(crew, device, flight, said->mode, now_s, of->sure_right[said->mode]);
    }
    if (of->local && now_s >= flight->due_s)
        return answer_here(crew, device, flight, said->mode, now_s, of->unsure_right[said->mode]);
    if (ask_again(crew, device, flight, now_s, said) < 0) return -1;
    int done = said->action == SEND
                   ? crew_send(crew, device, flight, said, now_s)
                   : answer_here(crew, device, flight, said->mode, now_s, of->unsure_right[said->mode]);
    Py_DECREF(said->object);
    return done;
}

static int worked(Crew *crew, Device *device, Flight *flight, Said *said, double now_s) {
    return said->action == SEND ? refined(crew, device, flight, said, now_s)
                                : here(crew, device, flight, said, now_s);
}

/* The work is done, and frames were on their way meanwhile. */
static int seen(PyObject *owner, PyObject *what, double now_s) {
    Crew *crew = (Crew *)owner;
    Flight *flight = (Flight *)what;
    Device *device = flight->device;
    Said said;
    PyObject *decision = flight->decision;
    flight->decision = NULL;
    if (read_decision(decision, &said) < 0) return -1;
    int done = catch_up(crew, device, now_s) < 0 ? -1 : worked(crew, device, flight, &said, now_s);
    Py_DECREF(decision);
    if (done < 0 || !device->waits) return done;
    return agenda_at(crew->agenda, device->free_s, freed, owner, (PyObject *)device);
}

/* Let it work, in one go where no answer can come meanwhile. */
static int begin_work(Crew *crew, Device *device, Flight *flight, Said *said, double now_s) {
    double done_s = now_s + work(crew, device, flight, said);
    if (!device->flights) return worked(crew, device, flight, said, done_s);
    device->free_s = INFINITY;
    flight->decision = Py_NewRef(said->object);
    return agenda_at(crew->agenda, done_s, seen, (PyObject *)crew, (PyObject *)flight);
}

static int start(Crew *crew, Device *device, double taken_s, uint64_t luck, double now_s) {
    Said said;
    if (device->flights && catch_up(crew, device, now_s) < 0) return -1;
    if (device->flights && device->flights >= crew->window) return drop(crew, taken_s);
    if (ask(crew, device, taken_s, now_s, &said) < 0) return -1;
    PyObject *decision = said.object;
    int done = -1;
    if (said.action == SKIP) {
        crew->tally->skipped++;
        if (tally_missed(crew->tally, taken_s) == 0)
            done = tell_here(crew, device, said.mode, names.skipped, now_s, NULL);
    } else {
        Flight *flight = flight_new(crew, device, taken_s, taken_s + crew->of.give_up_s);
        if (flight != NULL) {
            flight->luck = luck;
            done = begin_work(crew, device, flight, &said, now_s);
            Py_DECREF((PyObject *)flight);
        }
    }
    Py_DECREF(decision);
    return done;
}

/* ---------------------------------------------------------------- what Python sees */

static PyObject *begin(PyObject *object, PyObject *what) {
    Crew *crew = (Crew *)object;
    Device *device = (Device *)what;
    PyObject *first = PyObject_CallMethod(crew->clock, "first", "d", share(device->key, -1));
    if (double_of(first, &device->base_s) < 0) return NULL;
    device->burst_left = crew->burst;
    device->richness = normal[draw(device->key, -2) & 4095];
    device->ease = normal[draw(device->key, -3) & 4095];
    if (expect(crew, device, share(device->key, -4)) < 0) return NULL;
    Py_RETURN_NONE;
}

/* The fields of an object of Python's, which are written in place. */
static PyObject *fields_of(PyObject *object) { return PyObject_GetAttrString(object, "__dict__"); }

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    Crew *crew = (Crew *)object;
    PyObject *tables, *agenda, *tally;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Crew takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOOOOOOOO(ddddd)(llpp)", &crew->name, &crew->model, &tables, &crew->clock, &agenda,
                          &tally, &crew->routes, &crew->situation, &crew->observation, &crew->end_s, &crew->content_s,
                          &crew->interval_s, &crew->slow_share, &crew->slow_times, &crew->window, &crew->burst,
                          &crew->simple, &crew->outages))
        return -1;
    PyObject *kept[] = {crew->name, crew->model, crew->clock, crew->routes, crew->situation, crew->observation};
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) Py_INCREF(kept[i]);
    crew->agenda = (Agenda *)Py_NewRef(agenda);
    crew->tally = (Tally *)Py_NewRef(tally);
    crew->situation_fields = fields_of(crew->situation);
    crew->observation_fields = fields_of(crew->observation);
    crew->gap_s = -1.0;
    crew->told = (Told){.round_trip_ms = NAN, .confidence = NAN, .attempts = 1}; /* as core.py makes it */
    return crew->situation_fields == NULL || crew->observation_fields == NULL ? -1 : take_model(&crew->of, tables);
}

static void dealloc(PyObject *object) {
    Crew *crew = (Crew *)object;
    forget_model(&crew->of);
    dealloc_with(object,
                 (PyObject **[]){&crew->name, &crew->model, &crew->clock, &crew->routes, &crew->situation,
                                 &crew->observation, &crew->situation_fields, &crew->observation_fields,
                                 (PyObject **)&crew->agenda, (PyObject **)&crew->tally},
                 10);
}

static PyMethodDef methods[] = {
    {"begin", begin, METH_O, "begin(device): let it take its first picture when it is time."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"name", T_OBJECT, offsetof(Crew, name), READONLY, NULL},
    {"model", T_OBJECT, offsetof(Crew, model), READONLY, NULL},
    {"tally", T_OBJECT, offsetof(Crew, tally), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See crew.Crew."}, {Py_tp_init, init},       {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},      {Py_tp_members, members}, {0, NULL},
};

PyType_Spec crew_spec = {"headwater.simulations.fleet._core.Crew", sizeof(Crew), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
