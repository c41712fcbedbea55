/* A frame over the link, and what the server says of it: the second half of crew.Crew. */
#include "_core.h"

#include <math.h>

#define LEAST_BYTES 4
#define SILENT_S 45.0

static int give_up(Flight *flight) {
    Crew *crew = flight->crew;
    if (!crew->of.local || flight->due_s == INFINITY) {
        crew->tally->unanswered++;
        return tally_missed(crew->tally, flight->taken_s);
    }
    crew->tally->exit++;
    crew->tally->stepped_in++;
    double stepped_s = flight->sent_s > flight->due_s ? flight->sent_s : flight->due_s;
    return tally_here(crew->tally, flight->taken_s, stepped_s, flight->unsure_right);
}

static int lose(Flight *flight, double now_s) {
    flight->gone = 1;
    int done = give_up(flight);
    if (flight->due_s == INFINITY) flight->due_s = now_s + SILENT_S;
    return done;
}

/* ---------------------------------------------------------------- there */

/* Whether chance takes it away, at infinity it is lost for sure. */
static int is_lost(const Flight *flight, double at_s, int *lost) {
    double chance;
    if (link_loss(flight->device->link, flight->size, &chance) < 0) return -1;
    uint64_t key = flight->device->key ^ (uint64_t)flight->attempts;
    *lost = at_s == INFINITY || (chance != 0 && share(key, (int64_t)flight->luck) < chance);
    return 0;
}

static int write_frame(Flight *flight, double now_s) {
    Device *device = flight->device;
    double at_s;
    int lost;
    if (now_s >= flight->due_s) return lose(flight, now_s);
    if (link_up(device->link, device->line, now_s, flight->size, &at_s) < 0) return -1;
    if (is_lost(flight, at_s, &lost) < 0) return -1;
    if (lost) {
        flight->crew->tally->lost++;
        return lose(flight, now_s);
    }
    Station *station = device->station;
    return agenda_at(flight->crew->agenda, at_s + station->handling_s, station_arrive, (PyObject *)station,
                     (PyObject *)flight);
}

static int write_again(PyObject *crew, PyObject *what, double now_s) {
    (void)crew;
    Flight *flight = (Flight *)what;
    flight->sent_s = now_s;
    return write_frame(flight, now_s);
}

static double of_cut(const Model *of, const double *cuts, long mode, long groups, double whole) {
    if (groups < 0 || groups > of->most_groups) return whole;
    double cut = cuts[mode * (of->most_groups + 1) + groups];
    return isnan(cut) ? whole : cut;
}

/* Code it, again at the next lower gain while it is too long. */
static void code(const Model *of, const Device *device, Flight *flight, const Said *said) {
    for (long mode = said->mode;; mode = (long)of->below[mode]) {
        double mean = of_cut(of, of->cut_bytes, mode, said->groups, of->mean_bytes[mode]), sigma = of->sigma[mode];
        long size = (long)(mean * exp(sigma * (device->richness - 0.5 * sigma)) + 0.5);
        flight->mode = mode;
        flight->groups = said->groups;
        flight->size = size > LEAST_BYTES ? size : LEAST_BYTES;
        if (said->most_bytes < 0 || flight->size <= said->most_bytes || isnan(of->below[mode])) return;
    }
}

static double latest(double one, double two, double three) {
    double most = two > one ? two : one;
    return three > most ? three : most;
}

int crew_send(Crew *crew, Device *device, Flight *flight, const Said *said, double now_s) {
    code(&crew->of, device, flight, said);
    double sent_s = device->free_s = flight->sent_s = now_s + flight->code_ms / 1e3;
    crew->tally->code_s += flight->code_ms * 1e-3;
    flight->work_s = (flight->prepare_ms + flight->head_ms + flight->exit_ms + flight->code_ms) / 1e3;
    for (const Flight *other = device->first; other != NULL; other = other->next) flight->ahead += other->size;
    if (crew->of.local) flight->unsure_right = crew->of.unsure_right[flight->mode];
    device_add(device, flight);
    if (tally_sent(crew->tally, flight->taken_s, flight->mode, flight->size) < 0) return -1;
    return write_frame(flight, latest(sent_s, device->held_s, device->since_s));
}

/* ---------------------------------------------------------------- and back */

/* Ask the roll-out whether the device's bundle did its work; what its answers are worth more. */
static int released(const Crew *crew, Device *device, Flight *flight, int *failed, double *gain) {
    PyObject *counted = PyObject_GetAttr(device->release, names.answered);
    PyObject *given = Py_BuildValue("(OO)", device, flight), *local = PyBool_FromLong(crew->of.local);
    PyObject *keywords = PyDict_New(), *said = NULL;
    if (counted != NULL && given != NULL && keywords != NULL && PyDict_SetItem(keywords, names.local, local) == 0)
        said = PyObject_Call(counted, given, keywords);
    *failed = said == NULL ? -1 : !PyObject_IsTrue(said);
    Py_XDECREF(counted);
    Py_XDECREF(given);
    Py_XDECREF(local);
    Py_XDECREF(keywords);
    Py_XDECREF(said);
    if (*failed < 0) return -1;
    return device->uses_new ? double_of(PyObject_GetAttr(device->release, names.gain), gain) : 0;
}

static int too_late(Flight *flight) {
    return tally_came(flight->crew->tally, (flight->back_s - flight->taken_s) * 1e3);
}

int crew_served(Flight *flight, double started_s, double now_s) {
    Device *device = flight->device;
    Crew *crew = flight->crew;
    int failed = 0;
    double gain = 0.0;
    flight->server_ms = (now_s - flight->arrived_s + device->station->handling_s) * 1e3;
    if (link_down(device->link, device->line, now_s, &flight->back_s) < 0) return -1;
    if (flight->back_s == INFINITY) return lose(flight, now_s);
    if (flight->back_s > flight->due_s) return too_late(flight) < 0 ? -1 : give_up(flight);
    if (device->release != Py_None && released(crew, device, flight, &failed, &gain) < 0) return -1;
    if (failed) return too_late(flight) < 0 ? -1 : lose(flight, now_s);
    double right = of_cut(&crew->of, crew->of.cut_right, flight->mode, flight->groups, crew->of.right[flight->mode]);
    if (device->release != Py_None && device->uses_new) right += gain;
    return tally_served(crew->tally, flight, right, started_s, now_s);
}

int crew_expired(Flight *flight, double now_s) { return lose(flight, now_s); }

static int again(Flight *flight, double at_s) {
    flight->attempts++;
    if (at_s >= flight->due_s || at_s == INFINITY) return lose(flight, flight->sent_s);
    return agenda_at(flight->crew->agenda, at_s, write_again, (PyObject *)flight->crew, (PyObject *)flight);
}

int crew_refused(Flight *flight, double now_s, double retry_after_s) {
    Device *device = flight->device;
    double back_s;
    flight->crew->tally->refused++;
    if (link_down(device->link, device->line, now_s, &back_s) < 0) return -1;
    if (back_s + retry_after_s > device->held_s) device->held_s = back_s + retry_after_s;
    return again(flight, device->held_s);
}

int crew_broken(Flight *flight, double now_s) {
    Crew *crew = flight->crew;
    crew->tally->refused++;
    PyObject *now = PyFloat_FromDouble(now_s);
    PyObject *followed = now == NULL ? NULL
                                     : PyObject_CallMethodObjArgs(crew->routes, names.follow,
                                                                  (PyObject *)flight->device, now, NULL);
    Py_XDECREF(now);
    Py_XDECREF(followed);
    return followed == NULL ? -1 : again(flight, flight->device->since_s);
}
