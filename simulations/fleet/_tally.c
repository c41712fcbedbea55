/* Counts of one class of devices: tally.Tally. */
#include "_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

int grow(void **table, size_t *count, size_t at, size_t size) {
    if (at < *count) return 0;
    size_t more = at + 1 > 2 * *count ? at + 1 : 2 * *count;
    char *grown = realloc(*table, more * size);
    if (grown == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    memset(grown + *count * size, 0, (more - *count) * size);
    *table = grown;
    *count = more;
    return 0;
}

static int count_in(long long **table, size_t *count, size_t at) {
    if (grow((void **)table, count, at, sizeof(**table)) < 0) return -1;
    (*table)[at]++;
    return 0;
}

static Hour *hour_of(Tally *tally, double time_s) {
    size_t at = (size_t)(time_s / 3600);
    if (grow((void **)&tally->hours, &tally->hour_count, at, sizeof(Hour)) < 0) return NULL;
    tally->hours[at].touched = 1;
    return tally->hours + at;
}

/* tally._bin */
static size_t bin_of(double ms) {
    if (!(ms > 0.1)) return 0;
    double per_log = 100 / log(10.0), at = ceil(per_log * log(ms) - (per_log * log(0.1) + 1e-9));
    return at > 0 ? (size_t)at : 0;
}

/* ---------------------------------------------------------------- what happens */

int tally_taken(Tally *tally, double taken_s) {
    Hour *hour = hour_of(tally, taken_s);
    if (hour == NULL) return -1;
    tally->frames++;
    hour->frames++;
    return 0;
}

int tally_sent(Tally *tally, double taken_s, long mode, long size) {
    Hour *hour = hour_of(tally, taken_s);
    if (hour == NULL || count_in(&tally->modes, &tally->mode_count, (size_t)mode) < 0) return -1;
    tally->sent++;
    tally->frame_bytes += (double)size;
    hour->sent++;
    hour->frame_bytes += (double)size;
    return 0;
}

int tally_missed(Tally *tally, double taken_s) {
    Hour *hour = hour_of(tally, taken_s);
    if (hour == NULL) return -1;
    tally->missed++;
    hour->missed++;
    return 0;
}

static int count_answer(Tally *tally, double taken_s, double latency_ms, double right, size_t *at) {
    Hour *hour = hour_of(tally, taken_s);
    *at = bin_of(latency_ms);
    if (hour == NULL || count_in(&tally->latency, &tally->latency_count, *at) < 0) return -1;
    hour->latency_ms += latency_ms;
    if (latency_ms <= tally->deadline_ms) {
        tally->right += right;
    } else {
        tally->missed++;
        hour->missed++;
    }
    return 0;
}

int tally_here(Tally *tally, double taken_s, double answered_s, double right) {
    size_t at;
    return count_answer(tally, taken_s, (answered_s - taken_s) * 1e3, right, &at);
}

static void count_stages(double *stages, const Flight *flight, double started_s, double done_s) {
    double up_s = flight->arrived_s - flight->sent_s, queue_s = started_s - flight->arrived_s;
    double run_s = done_s - started_s;
    stages[0] += flight->sent_s - flight->work_s - flight->taken_s;
    stages[1] += flight->prepare_ms;
    stages[2] += flight->head_ms;
    stages[3] += flight->exit_ms;
    stages[4] += flight->code_ms;
    stages[5] += up_s;
    stages[6] += queue_s;
    stages[7] += run_s;
    stages[8] += flight->back_s - flight->sent_s - up_s - queue_s - run_s;
}

int tally_served(Tally *tally, const Flight *flight, double right, double started_s, double done_s) {
    size_t at;
    if (count_answer(tally, flight->taken_s, (flight->back_s - flight->taken_s) * 1e3, right, &at) < 0) return -1;
    if (count_in(&tally->server_latency, &tally->server_latency_count, at) < 0) return -1;
    tally->server++;
    hour_of(tally, flight->taken_s)->server++;
    count_stages(tally->stages, flight, started_s, done_s);
    return 0;
}

int tally_came(Tally *tally, double latency_ms) {
    return count_in(&tally->server_latency, &tally->server_latency_count, bin_of(latency_ms));
}

/* ---------------------------------------------------------------- what Python sees */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *keys[] = {"outcome", "used", "deadline_ms", NULL};
    Tally *tally = (Tally *)object;
    PyObject *outcome, *used;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOd", keys, &outcome, &used, &tally->deadline_ms)) return -1;
    tally->outcome = Py_NewRef(outcome);
    tally->used = (Used *)Py_NewRef(used);
    return 0;
}

/* Those that are not 0, by their place. */
static PyObject *counted(const long long *table, size_t count) {
    PyObject *counts = PyDict_New();
    for (size_t i = 0; counts != NULL && i < count; i++) {
        if (table[i] == 0) continue;
        PyObject *at = PyLong_FromSize_t(i), *number = PyLong_FromLongLong(table[i]);
        if (at == NULL || number == NULL || PyDict_SetItem(counts, at, number) < 0) Py_CLEAR(counts);
        Py_XDECREF(at);
        Py_XDECREF(number);
    }
    return counts;
}

static PyObject *counts(PyObject *object, PyObject *unused) {
    (void)unused;
    const Tally *tally = (Tally *)object;
    return Py_BuildValue("(NNN)", counted(tally->modes, tally->mode_count),
                         counted(tally->latency, tally->latency_count),
                         counted(tally->server_latency, tally->server_latency_count));
}

static PyObject *hours(PyObject *object, PyObject *unused) {
    (void)unused;
    const Tally *tally = (Tally *)object;
    PyObject *rows = PyList_New(0);
    for (size_t i = 0; rows != NULL && i < tally->hour_count; i++) {
        const Hour *hour = tally->hours + i;
        if (!hour->touched) continue;
        PyObject *row = Py_BuildValue("(nLLLdLd)", (Py_ssize_t)i, hour->frames, hour->missed, hour->sent,
                                      hour->frame_bytes, hour->server, hour->latency_ms);
        if (row == NULL || PyList_Append(rows, row) < 0) Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

static PyObject *stages(PyObject *object, PyObject *unused) {
    (void)unused;
    const double *of = ((Tally *)object)->stages;
    return Py_BuildValue("[ddddddddd]", of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7], of[8]);
}

static void dealloc(PyObject *object) {
    Tally *tally = (Tally *)object;
    free(tally->modes);
    free(tally->latency);
    free(tally->server_latency);
    free(tally->hours);
    dealloc_with(object, (PyObject **[]){&tally->outcome, (PyObject **)&tally->used}, 2);
}

static PyMethodDef methods[] = {
    {"counts", counts, METH_NOARGS, "Frames by mode, answers and the server's answers by bin."},
    {"hours", hours, METH_NOARGS, "[(hour, frames, missed, sent, frame_bytes, server, latency_ms), ...]"},
    {"stages", stages, METH_NOARGS, "As tally.Tally adds them up."},
    {NULL, NULL, 0, NULL},
};

#define COUNT(name) {#name, T_LONGLONG, offsetof(Tally, name), 0, NULL}
#define SUM(name) {#name, T_DOUBLE, offsetof(Tally, name), 0, NULL}

static PyMemberDef members[] = {
    {"outcome", T_OBJECT, offsetof(Tally, outcome), READONLY, NULL},
    {"used", T_OBJECT, offsetof(Tally, used), READONLY, NULL},
    COUNT(frames), COUNT(server), COUNT(exit), COUNT(whole), COUNT(unanswered), COUNT(skipped), COUNT(dropped),
    COUNT(sure), COUNT(stepped_in), COUNT(missed), COUNT(sent), COUNT(refused), COUNT(lost), SUM(right),
    SUM(frame_bytes), SUM(prepare_s), SUM(head_s), SUM(exit_s), SUM(code_s), SUM(whole_s), SUM(train_s),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See tally.Tally."}, {Py_tp_init, init},       {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},        {Py_tp_members, members}, {0, NULL},
};

PyType_Spec tally_spec = {"headwater.simulations.fleet._core.Tally", sizeof(Tally), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
