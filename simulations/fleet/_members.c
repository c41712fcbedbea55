/* Devices and their frames: member.Device and flight.Flight. */
#include "_core.h"

#include <math.h>
#include <structmember.h>

/* ---------------------------------------------------------------- frames */

Flight *flight_new(Crew *crew, Device *device, double taken_s, double due_s) {
    Flight *flight = (Flight *)alloc(flight_type);
    if (flight == NULL) return NULL;
    flight->crew = (Crew *)Py_NewRef((PyObject *)crew);
    flight->device = (Device *)Py_NewRef((PyObject *)device);
    flight->taken_s = taken_s;
    flight->due_s = due_s;
    flight->back_s = INFINITY;
    flight->attempts = 1;
    flight->groups = -1;
    flight->confidence = NAN;
    return flight;
}

void device_add(Device *device, Flight *flight) {
    Py_INCREF((PyObject *)flight);
    if (device->last == NULL) device->first = flight;
    else device->last->next = flight;
    device->last = flight;
    device->flights++;
}

static void dealloc_flight(PyObject *object) {
    Flight *flight = (Flight *)object;
    dealloc_with(object, (PyObject **[]){(PyObject **)&flight->crew, (PyObject **)&flight->device, &flight->decision},
                 3);
}

/* ---------------------------------------------------------------- devices */

static int init(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *keys[] = {"key", "controller", "link", "line", "station", NULL};
    Device *device = (Device *)object;
    unsigned long long key;
    PyObject *line, *station;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KOOOO", keys, &key, &device->controller, &device->link, &line,
                                     &station))
        return -1;
    device->key = key;
    device->taken_s = -INFINITY;
    device->pace = 1.0;
    Py_INCREF(device->controller);
    Py_INCREF(device->link);
    device->line = (Line *)Py_NewRef(line);
    device->station = (Station *)Py_NewRef(station);
    device->release = Py_NewRef(Py_None);
    return 0;
}

static PyObject *flights(PyObject *object, void *unused) {
    (void)unused;
    PyObject *all = PyList_New(0);
    for (Flight *flight = ((Device *)object)->first; all != NULL && flight != NULL; flight = flight->next)
        if (PyList_Append(all, (PyObject *)flight) < 0) Py_CLEAR(all);
    return all;
}

/* Let go of what goes round in circles: frames of their device, a release of its devices. */
static PyObject *part(PyObject *object, PyObject *unused) {
    (void)unused;
    Device *device = (Device *)object;
    Flight *flight = device->first;
    device->first = device->last = NULL;
    device->flights = 0;
    while (flight != NULL) {
        Flight *next = flight->next;
        Py_DECREF((PyObject *)flight);
        flight = next;
    }
    PyObject *release = device->release;
    device->release = Py_NewRef(Py_None);
    Py_XDECREF(release);
    Py_RETURN_NONE;
}

static void dealloc_device(PyObject *object) {
    Device *device = (Device *)object;
    dealloc_with(object,
                 (PyObject **[]){&device->controller, &device->link, &device->release, (PyObject **)&device->line,
                                 (PyObject **)&device->station},
                 5);
}

/* ---------------------------------------------------------------- what Python sees */

static PyGetSetDef device_getters[] = {
    {"flights", flights, NULL, "Its frames on their way.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef device_methods[] = {
    {"part", part, METH_NOARGS, "Let go of frames and release, when all is done."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef device_members[] = {
    {"key", T_ULONGLONG, offsetof(Device, key), READONLY, NULL},
    {"controller", T_OBJECT, offsetof(Device, controller), 0, NULL},
    {"link", T_OBJECT, offsetof(Device, link), READONLY, NULL},
    {"line", T_OBJECT, offsetof(Device, line), READONLY, NULL},
    {"station", T_OBJECT, offsetof(Device, station), 0, NULL},
    {"release", T_OBJECT, offsetof(Device, release), 0, NULL},
    {"uses_new", T_BOOL, offsetof(Device, uses_new), 0, NULL},
    {"pace", T_DOUBLE, offsetof(Device, pace), 0, NULL},
    {"since_s", T_DOUBLE, offsetof(Device, since_s), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef flight_members[] = {
    {"luck", T_ULONGLONG, offsetof(Flight, luck), READONLY, NULL},
    {"told", T_BOOL, offsetof(Flight, told), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot device_slots[] = {
    {Py_tp_doc, "See member.Device."},     {Py_tp_init, init},
    {Py_tp_dealloc, dealloc_device},       {Py_tp_getset, device_getters},
    {Py_tp_methods, device_methods},       {Py_tp_members, device_members},
    {0, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_doc, "See flight.Flight."},
    {Py_tp_dealloc, dealloc_flight},
    {Py_tp_members, flight_members},
    {0, NULL},
};

#define NAMED(name) "headwater.simulations.fleet._core." name
PyType_Spec device_spec = {NAMED("Device"), sizeof(Device), 0, Py_TPFLAGS_DEFAULT, device_slots};
PyType_Spec flight_spec = {NAMED("Flight"), sizeof(Flight), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           flight_slots};
