/* The inner arithmetic of the rule that keeps the deadline, as margin.py and ways.py have it.
 *
 * Those two say what is reckoned and why; this does the same with the same operations in the same order, so that every
 * bit of a result is the same (it is compiled without contracting a * b + c). Python finds the numbers that a picture
 * begins with and says what is done in the end; what runs for each way to answer it, and for each error that is learnt,
 * is here.
 */
#ifndef HEADWATER_WAYS_H
#define HEADWATER_WAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define MEMORY 64
#define BODY 0.9
#define STEP 0.2
#define FIRST_CORRECTION 0.3
#define LEAST_CORRECTION 0.02
#define MOST_CORRECTION 2.0

#define HOPELESS 0.1
#define NOISE 0.002
#define STEADY 0.5

typedef struct {
    PyObject_HEAD
    double upper;
    double miss, hit, correction;
    double order[MEMORY], sorted[MEMORY]; /* the errors as they came, `oldest` being the next to go; and by size */
    int count, oldest, body;
} Margin;

extern PyType_Spec margin_spec;

double margin_chance(const Margin *margin, double error, double beyond);

#endif
