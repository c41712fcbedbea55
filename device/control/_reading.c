/* Situations and observations, which are controller.py's, as numbers. */
#include "_ways.h"

#include <math.h>

/* Their attributes. */
static struct {
    PyObject *age_ms, *attempts, *bytes_ahead, *bytes_unanswered, *code_ms, *connected, *deadline_ms;
    PyObject *exit_available, *exit_ms, *frames_unanswered, *head_ms, *held_ms, *interval_ms, *max_bytes;
    PyObject *max_groups, *mode, *oldest_ms, *outcome, *prepare_ms, *round_trip_ms, *sent_bytes, *server_ms;
    PyObject *time_s, *whole_ms;
} names;

#define NAME(word) {&names.word, #word}

int reading_prepare(void) {
    const struct {
        PyObject **to;
        const char *word;
    } all[] = {
        NAME(age_ms), NAME(attempts), NAME(bytes_ahead), NAME(bytes_unanswered), NAME(code_ms), NAME(connected),
        NAME(deadline_ms), NAME(exit_available), NAME(exit_ms), NAME(frames_unanswered), NAME(head_ms),
        NAME(held_ms), NAME(interval_ms), NAME(max_bytes), NAME(max_groups), NAME(mode), NAME(oldest_ms),
        NAME(outcome), NAME(prepare_ms), NAME(round_trip_ms), NAME(sent_bytes), NAME(server_ms), NAME(time_s),
        NAME(whole_ms),
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (*all[i].to == NULL && (*all[i].to = PyUnicode_InternFromString(all[i].word)) == NULL) return -1;
    return 0;
}

/* Of attributes, what they are; not a number and -1 stand for None. */
typedef struct {
    PyObject *name;
    double *to;
} Number;

typedef struct {
    PyObject *name;
    long *to;
} Whole;

static int read_numbers(PyObject *object, const Number *numbers, size_t count) {
    for (const Number *number = numbers; number < numbers + count; number++) {
        PyObject *attribute = PyObject_GetAttr(object, number->name);
        if (attribute == NULL) return -1;
        *number->to = attribute == Py_None ? NAN : PyFloat_AsDouble(attribute);
        Py_DECREF(attribute);
        if (*number->to == -1 && PyErr_Occurred()) return -1;
    }
    return 0;
}

static int read_wholes(PyObject *object, const Whole *wholes, size_t count) {
    for (const Whole *whole = wholes; whole < wholes + count; whole++) {
        PyObject *attribute = PyObject_GetAttr(object, whole->name);
        int ok = long_of(attribute, whole->to);
        Py_XDECREF(attribute);
        if (!ok) return -1;
    }
    return 0;
}

static int read_truth(PyObject *object, PyObject *name, int *truth) {
    PyObject *attribute = PyObject_GetAttr(object, name);
    *truth = attribute == NULL ? -1 : PyObject_IsTrue(attribute);
    Py_XDECREF(attribute);
    return *truth < 0 ? -1 : 0;
}

#define COUNT(table) (sizeof(table) / sizeof(*(table)))

int read_situation(PyObject *situation, Asked *asked) {
    double deadline_ms, age_ms;
    const Number numbers[] = {
        {names.deadline_ms, &deadline_ms},      {names.age_ms, &age_ms},
        {names.interval_ms, &asked->interval_ms}, {names.held_ms, &asked->held_ms},
        {names.time_s, &asked->time_s},         {names.oldest_ms, &asked->oldest_ms},
        {names.whole_ms, &asked->whole_ms},
    };
    const Whole wholes[] = {
        {names.frames_unanswered, &asked->frames}, {names.bytes_unanswered, &asked->bytes},
        {names.max_groups, &asked->max_groups},    {names.max_bytes, &asked->max_bytes},
    };
    if (read_numbers(situation, numbers, COUNT(numbers)) < 0 || read_wholes(situation, wholes, COUNT(wholes)) < 0 ||
        read_truth(situation, names.connected, &asked->connected) < 0 ||
        read_truth(situation, names.exit_available, &asked->exit_available) < 0)
        return -1;
    asked->left_ms = isnan(deadline_ms) ? INFINITY : deadline_ms - age_ms;
    if (isnan(asked->interval_ms) || asked->interval_ms == 0) asked->interval_ms = INFINITY;
    return 0;
}

/* 1 for a frame that was answered in time, 0 for all else, -1 with an exception set. */
int read_observation(PyObject *observation, size_t modes, Seen *seen) {
    const Number numbers[] = {
        {names.prepare_ms, &seen->prepare_ms},       {names.head_ms, &seen->head_ms},
        {names.exit_ms, &seen->exit_ms},             {names.code_ms, &seen->code_ms},
        {names.round_trip_ms, &seen->round_trip_ms}, {names.server_ms, &seen->server_ms},
        {names.time_s, &seen->time_s},
    };
    const Whole wholes[] = {
        {names.mode, &seen->mode},         {names.sent_bytes, &seen->size},
        {names.attempts, &seen->attempts}, {names.bytes_ahead, &seen->ahead},
    };
    PyObject *outcome = PyObject_GetAttr(observation, names.outcome);
    int answered = outcome == NULL ? -1 : PyUnicode_CompareWithASCIIString(outcome, "answered") == 0;
    Py_XDECREF(outcome);
    if (answered <= 0) return answered;
    if (read_numbers(observation, numbers, COUNT(numbers)) < 0 || read_wholes(observation, wholes, COUNT(wholes)) < 0)
        return -1;
    int known = seen->mode >= 0 && (size_t)seen->mode < modes;
    return known && seen->attempts > 0 && !isnan(seen->round_trip_ms);
}
