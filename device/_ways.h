/* The inner arithmetic of the rule that keeps the deadline, as margin.py, line.py and ways.py have it.
 *
 * Those say what is reckoned and why; this does the same with the same operations in the same order, so that every
 * bit of a result is the same (it is compiled without contracting a * b + c). Python finds the numbers that a picture
 * begins with and says what is done in the end; what runs for each way to answer it, and for each error that is learnt,
 * is here.
 */
#ifndef HEADWATER_WAYS_H
#define HEADWATER_WAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* ---------------------------------------------------------------- margin */

#define MEMORY 64
#define BODY 0.9
#define STEP 0.2
#define FIRST_CORRECTION 0.3
#define LEAST_CORRECTION 0.02
#define MOST_CORRECTION 2.0

typedef struct {
    PyObject_HEAD
    double upper;
    double miss, hit, correction;
    double order[MEMORY], sorted[MEMORY]; /* the errors as they came, `oldest` being the next to go; and by size */
    int count, oldest, body;
} Margin;

extern PyType_Spec margin_spec;

/* Of an object that owns nothing. */
void dealloc_plain(PyObject *object);

double margin_chance(const Margin *margin, double error, double beyond);

/* ---------------------------------------------------------------- line */

#define FORGET 0.97
#define GUESS 0.4
#define GUESS_OFF 0.2
#define LEAST_NOISE 0.01
#define MOST_BASE 0.9
#define TOLD 0.9

extern PyType_Spec line_spec;

/* ---------------------------------------------------------------- ways */

#define HOPELESS 0.1
#define MOST_LOST 5.0
#define NOISE 0.002
#define STEADY 0.5

typedef enum { LOCAL, SEND, WHOLE, ACTIONS } Action;

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

/* What the link would be if it carried less: ways.Fear. */
typedef struct {
    double share, base_ms, byte_ms, interval_ms;
} Fear;

typedef struct {
    double left_ms, base_ms, byte_ms, ahead_ms, oldest_ms, steady_bytes, beyond;
    const Margin *margin; /* NULL: there is no room */
    Fear fear;
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

/* A table, and what was found of the picture at hand. */
typedef struct {
    size_t widths; /* widest first */
    Width *width;
    Way *ways; /* with room for all that there can be */
    size_t count;
} Table;

double weigh(Table *table, const Way *whole, const Work *work, const Room *room, const Wanted *wanted);
const Way *worthiest(const Table *table, const Key *kept);
const Way *cheapest(const Table *table, double enough, const Cost *cost);
const Way *likeliest(const Table *table, double within);

#endif
