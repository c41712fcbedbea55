/* What Python sees of the entropy coder; _rans.h has how it works, coder.py its use. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "_rans.h"

#define CAPSULE "headwater.compression._rans.Model"
#define VIEWS 7

/* A capsule's content: the model, and room for one encoder's words, taken and given back while the GIL is held. */
typedef struct {
    Model model;
    uint8_t *scratch;
} Coder;

/* ---------------------------------------------------------------- prepare */

static void free_coder(Coder *coder) {
    Model *model = &coder->model;
    if (model->push != NULL && model->pull != NULL) free_tables(model);
    void *parts[] = {model->push, model->pull,  model->frequencies,   model->starts,     model->low,
                     model->step, model->lanes, model->mode_channels, model->group_ends, coder->scratch};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
    free(coder);
}

static void free_capsule(PyObject *capsule) { free_coder(PyCapsule_GetPointer(capsule, CAPSULE)); }

/* PriorTables has said what is wrong with tables; this only keeps wrong ones from reading past an array. */
static int check_table(const Py_buffer *frequencies, uint32_t begin, uint32_t end) {
    const uint16_t *all = frequencies->buf;
    uint32_t sum = 0;
    if (end < begin + 2 || end - begin > TOTAL || end > (size_t)frequencies->len / 2) return 0;
    for (uint32_t i = begin; i < end; i++) sum += all[i] == 0 ? TOTAL + 1 : all[i];
    return sum == TOTAL;
}

static int check_model(const Model *model, const Py_buffer views[VIEWS]) {
    const uint32_t *starts = views[1].buf;
    const uint8_t *mode_channels = views[5].buf, *group_ends = views[6].buf;
    size_t tables = model->modes * model->channels;
    size_t wanted[VIEWS] = {(size_t)views[0].len, (tables + 1) * 4, tables * 2, tables * 4, model->modes, model->modes,
                            model->groups};
    if (model->modes < 1 || model->channels < 1 || model->channels > 255 || model->groups < 1 || model->plane < 1) return 0;
    for (int i = 0; i < VIEWS; i++)
        if ((size_t)views[i].len != wanted[i]) return 0;
    if (model->groups > 255 || group_ends[model->groups - 1] != model->channels) return 0;
    for (size_t m = 0; m < model->modes; m++) {
        if (mode_channels[m] > model->channels) return 0;
        for (size_t i = m * model->channels; i < m * model->channels + mode_channels[m]; i++)
            if (!check_table(views, starts[i], starts[i + 1])) return 0;
    }
    return 1;
}

static void *copy_of(const Py_buffer *view) {
    void *copy = malloc((size_t)view->len + 1);
    return copy == NULL ? NULL : memcpy(copy, view->buf, (size_t)view->len);
}

static int take_views(Model *model, const Py_buffer views[VIEWS]) {
    model->frequencies = copy_of(views);
    model->starts = copy_of(views + 1);
    model->low = copy_of(views + 2);
    model->step = copy_of(views + 3);
    model->lanes = copy_of(views + 4);
    model->mode_channels = copy_of(views + 5);
    model->group_ends = copy_of(views + 6);
    model->push = calloc(model->modes, sizeof *model->push);
    model->pull = calloc(model->modes, sizeof *model->pull);
    return model->frequencies && model->starts && model->low && model->step && model->lanes && model->mode_channels &&
           model->group_ends && model->push && model->pull;
}

static PyObject *capsule_of(const Py_buffer views[VIEWS], Py_ssize_t plane) {
    Coder *coder = calloc(1, sizeof *coder);
    if (coder == NULL) return PyErr_NoMemory();
    Model *model = &coder->model;
    model->modes = (size_t)views[4].len;
    model->channels = model->modes ? (size_t)views[2].len / 2 / model->modes : 0;
    model->groups = (size_t)views[6].len;
    model->plane = plane > 0 ? (size_t)plane : 0;
    PyObject *capsule = NULL;
    if (!check_model(model, views)) PyErr_SetString(PyExc_ValueError, "inconsistent tables; PriorTables checks them");
    else if (!take_views(model, views)) PyErr_NoMemory();
    else capsule = PyCapsule_New(coder, CAPSULE, free_capsule);
    if (capsule == NULL) free_coder(coder);
    return capsule;
}

static PyObject *prepare(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer v[VIEWS];
    Py_ssize_t plane;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*n", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, &plane)) return NULL;
    PyObject *capsule = capsule_of(v, plane);
    for (int i = 0; i < VIEWS; i++) PyBuffer_Release(v + i);
    return capsule;
}

/* ---------------------------------------------------------------- arguments */

/* An index below `bound`, or -1 with an exception set. */
static Py_ssize_t index_of(PyObject *object, size_t bound, const char *what) {
    Py_ssize_t index = PyNumber_AsSsize_t(object, PyExc_OverflowError);
    if (index == -1 && PyErr_Occurred()) return -1;
    if (index < 0 || (size_t)index >= bound) {
        PyErr_Format(PyExc_ValueError, "%s is %zd; want 0 to %zu", what, index, bound - 1);
        return -1;
    }
    return index;
}

/* One frame to decode. */
typedef struct {
    const uint8_t *payload;
    size_t size, mode, channels;
    const PullTable *tables;
    int status;
} Job;

static int fill_job(Model *model, Job *job, PyObject *payload, PyObject *mode, PyObject *groups) {
    char *bytes;
    Py_ssize_t size, m, g;
    if (PyBytes_AsStringAndSize(payload, &bytes, &size) < 0) return 0;
    if ((m = index_of(mode, model->modes, "mode")) < 0) return 0;
    if ((g = index_of(groups, model->groups + 1, "groups")) < 0) return 0;
    size_t all = model->mode_channels[m], some = g == 0 ? 0 : model->group_ends[g - 1];
    *job = (Job){(uint8_t *)bytes, (size_t)size, (size_t)m, some < all ? some : all, pull_tables(model, (size_t)m), OK};
    if (job->tables == NULL) PyErr_NoMemory();
    return job->tables != NULL;
}

/* ---------------------------------------------------------------- encode */

static PyObject *payload_and_ends(const uint8_t *payload, size_t size, const size_t *ends, size_t groups) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)groups);
    for (size_t g = 0; tuple != NULL && g < groups; g++) {
        PyObject *end = PyLong_FromSize_t(ends[g]);
        if (end == NULL) Py_CLEAR(tuple);
        else PyTuple_SetItem(tuple, (Py_ssize_t)g, end);
    }
    PyObject *bytes = tuple == NULL ? NULL : PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)size);
    PyObject *result = bytes == NULL ? NULL : PyTuple_Pack(2, bytes, tuple);
    Py_XDECREF(bytes);
    Py_XDECREF(tuple);
    return result;
}

static PyObject *encode_symbols(Coder *coder, size_t mode, const int16_t *symbols) {
    Model *model = &coder->model;
    const PushTable *tables = push_tables(model, mode);
    size_t room = encode_room(model), ends[255];
    uint8_t *scratch = coder->scratch != NULL ? coder->scratch : malloc(room), *out;
    coder->scratch = NULL;
    if (tables == NULL || scratch == NULL) {
        free(scratch);
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
    out = encode_frame(model, mode, tables, symbols, scratch + room, ends);
    Py_END_ALLOW_THREADS
    PyObject *result = payload_and_ends(out, (size_t)(scratch + room - out), ends, model->groups);
    if (coder->scratch == NULL) coder->scratch = scratch;
    else free(scratch); /* another thread has given its own back meanwhile */
    return result;
}

static PyObject *encode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 3) return PyErr_Format(PyExc_TypeError, "encode takes 3 arguments, got %zd", count);
    Coder *coder = PyCapsule_GetPointer(args[0], CAPSULE);
    Py_ssize_t mode = coder == NULL ? -1 : index_of(args[2], coder->model.modes, "mode");
    Py_buffer symbols;
    if (mode < 0 || PyObject_GetBuffer(args[1], &symbols, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *result = NULL;
    if ((size_t)symbols.len != coder->model.mode_channels[mode] * coder->model.plane * 2)
        PyErr_Format(PyExc_ValueError, "symbols have %zd bytes; that is not the mode's shape", symbols.len);
    else
        result = encode_symbols(coder, (size_t)mode, symbols.buf);
    PyBuffer_Release(&symbols);
    return result;
}

/* ---------------------------------------------------------------- decode */

static PyObject *decode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "decode takes 5 arguments, got %zd", count);
    Coder *coder = PyCapsule_GetPointer(args[0], CAPSULE);
    Job job;
    Py_buffer out;
    if (coder == NULL || !fill_job(&coder->model, &job, args[1], args[2], args[3])) return NULL;
    if (PyObject_GetBuffer(args[4], &out, PyBUF_WRITABLE) < 0) return NULL;
    int fits = (size_t)out.len == job.channels * coder->model.plane * 2;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        job.status = decode_frame(&coder->model, job.mode, job.tables, job.channels, job.payload, job.size, out.buf, NULL);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_Format(PyExc_ValueError, "out has %zd bytes; that is not the groups' shape", out.len);
    }
    PyBuffer_Release(&out);
    return fits ? PyLong_FromLong(job.status) : NULL;
}

static void run_jobs(const Model *model, Job *jobs, size_t count, int16_t *plane, float *latents) {
    size_t row = model->channels * model->plane;
    for (size_t i = 0; i < count; i++) {
        Job *j = jobs + i;
        float *latent = latents + i * row;
        j->status = decode_frame(model, j->mode, j->tables, j->channels, j->payload, j->size, plane, latent);
        size_t filled = j->status == OK ? j->channels * model->plane : 0;
        memset(latent + filled, 0, (row - filled) * sizeof *latent);
    }
}

static PyObject *statuses(const Job *jobs, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *status = PyLong_FromLong(jobs[i].status);
        if (status == NULL) Py_CLEAR(tuple);
        else PyTuple_SetItem(tuple, i, status);
    }
    return tuple;
}

/* `frames` are tuples of payloads, modes and groups: our own, so that no payload goes away while the GIL is. */
static PyObject *decode_frames(Model *model, PyObject *const frames[3], float *latents) {
    Py_ssize_t count = PyTuple_Size(frames[0]);
    Job *jobs = calloc((size_t)count + 1, sizeof *jobs);
    int16_t *plane = malloc(model->plane * sizeof *plane);
    int ok = jobs != NULL && plane != NULL;
    if (!ok) PyErr_NoMemory();
    for (Py_ssize_t i = 0; ok && i < count; i++)
        ok = fill_job(model, jobs + i, PyTuple_GetItem(frames[0], i), PyTuple_GetItem(frames[1], i),
                      PyTuple_GetItem(frames[2], i));
    if (ok) {
        Py_BEGIN_ALLOW_THREADS
        run_jobs(model, jobs, (size_t)count, plane, latents);
        Py_END_ALLOW_THREADS
    }
    PyObject *result = ok ? statuses(jobs, count) : NULL;
    free(plane);
    free(jobs);
    return result;
}

static int same_length(const Model *model, PyObject *const frames[3], const Py_buffer *out) {
    Py_ssize_t count = PyTuple_Size(frames[0]);
    size_t row = model->channels * model->plane * sizeof(float);
    int same = PyTuple_Size(frames[1]) == count && PyTuple_Size(frames[2]) == count && (size_t)out->len == (size_t)count * row;
    if (!same) PyErr_SetString(PyExc_ValueError, "payloads, modes, groups and out differ in length");
    return same;
}

static PyObject *decode_batch(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *sequences[3], *frames[3] = {NULL, NULL, NULL}, *result = NULL;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OOOOw*", &capsule, sequences, sequences + 1, sequences + 2, &out)) return NULL;
    Coder *coder = PyCapsule_GetPointer(capsule, CAPSULE);
    int ok = coder != NULL;
    for (int i = 0; ok && i < 3; i++) ok = (frames[i] = PySequence_Tuple(sequences[i])) != NULL;
    if (ok && same_length(&coder->model, frames, &out)) result = decode_frames(&coder->model, frames, out.buf);
    for (int i = 0; i < 3; i++) Py_XDECREF(frames[i]);
    PyBuffer_Release(&out);
    return result;
}

/* ---------------------------------------------------------------- updates */

/* Arrays of `sides` (rows, columns, alphabet, each three uint32) over values and live; NULL with an exception set. */
static Integers *arrays_of(const Py_buffer *sides, const Py_buffer *live, const Py_buffer *values) {
    size_t count = (size_t)sides->len / 12, at = 0, size = (size_t)values->len;
    const uint32_t *side = sides->buf;
    Integers *arrays = malloc((count + 1) * sizeof *arrays);
    if (arrays == NULL) return (Integers *)PyErr_NoMemory();
    int fits = 1;
    for (size_t i = 0; fits && i < count; i++, side += 3) {
        uint64_t cells = (uint64_t)side[0] * side[1];
        const uint8_t *alive = live->len ? (const uint8_t *)live->buf + at : NULL;
        arrays[i] = (Integers){(int8_t *)values->buf + at, alive, side[0], side[1], (int)side[2]};
        fits = cells <= size - at;
        at += (size_t)cells;
    }
    if (fits && at == size && sides->len % 12 == 0 && (live->len == 0 || live->len == values->len)) return arrays;
    PyErr_SetString(PyExc_ValueError, "values, live and sides differ in length");
    free(arrays);
    return NULL;
}

static PyObject *encode_values(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer values, live, sides;
    if (!PyArg_ParseTuple(args, "y*y*y*", &values, &live, &sides)) return NULL;
    Integers *arrays = arrays_of(&sides, &live, &values);
    PyObject *result = NULL;
    if (arrays != NULL) {
        size_t size = 0;
        uint8_t *data;
        Py_BEGIN_ALLOW_THREADS
        data = encode_integers(arrays, (size_t)sides.len / 12, &size);
        Py_END_ALLOW_THREADS
        result = data == NULL ? PyErr_NoMemory() : PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
        free(data);
    }
    free(arrays);
    PyBuffer_Release(&values);
    PyBuffer_Release(&live);
    PyBuffer_Release(&sides);
    return result;
}

static PyObject *decode_values(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data, live, sides, values;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &data, &live, &sides, &values)) return NULL;
    Integers *arrays = arrays_of(&sides, &live, &values);
    int status = OK;
    if (arrays != NULL) {
        Py_BEGIN_ALLOW_THREADS
        memset(values.buf, 0, (size_t)values.len);
        status = decode_integers(arrays, (size_t)sides.len / 12, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    PyObject *result = arrays == NULL ? NULL : status == NO_MEMORY ? PyErr_NoMemory() : PyLong_FromLong(status);
    free(arrays);
    PyBuffer_Release(&data);
    PyBuffer_Release(&live);
    PyBuffer_Release(&sides);
    PyBuffer_Release(&values);
    return result;
}

/* ---------------------------------------------------------------- module */

static PyMethodDef methods[] = {
    {"prepare", prepare, METH_VARARGS,
     "prepare(frequencies, starts, low, step, lanes, mode_channels, group_ends, plane) -> model"},
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL,
     "encode(model, symbols, mode) -> (payload, group_ends); symbols are int16 [C_w, H, W]"},
    {"decode", (PyCFunction)(void (*)(void))decode, METH_FASTCALL,
     "decode(model, payload, mode, groups, out) -> status; out is int16 [channels, H, W]"},
    {"decode_batch", decode_batch, METH_VARARGS,
     "decode_batch(model, payloads, modes, groups, out) -> statuses; out is float32 [B, C, H, W]"},
    {"encode_values", encode_values, METH_VARARGS,
     "encode_values(values, live, sides) -> bytes; values are int8 [n], live uint8 [n] or empty, sides uint32 [T, 3]"},
    {"decode_values", decode_values, METH_VARARGS, "decode_values(data, live, sides, values) -> status"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rans", "Range ANS for feature frames; see coder.py", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rans(void) { return PyModuleDef_Init(&module); }
