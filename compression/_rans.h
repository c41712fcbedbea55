/* The entropy coder of feature frames: range ANS (Duda 2013, arXiv:1311.2540) with a 64-bit state.
 *
 * The state x is a number into which symbols are pushed and from which they are pulled in reverse. A symbol that owns
 * f of the 65536 slots, the first of them s, is
 *
 *     pushed:  x = (x / f) * 65536 + s + x % f
 *     pulled:  slot = x % 65536; the symbol is the slot's owner; x = f * (x / 65536) + slot - s
 *
 * so x grows by 65536 / f, that is by the symbol's information. Before a push would lift x to 2^63 its low 32 bits move
 * out as a word; after a pull that leaves x below 2^31 the next word moves in. docs/wire-format.md has every byte;
 * rans.py is the same coder in plain Python, the reference that tests hold this file to.
 *
 * What makes it fast:
 *   - x < 2^63 lets one multiplication by a 64-bit reciprocal replace the division, exactly (Alverson 1991).
 *   - Slots are given to symbols in falling order of frequency, so that 256 buckets of slots hold at most two symbols
 *     each but for the rarest, and a pull is a choice between two.
 *   - Where one symbol takes most slots a pull guesses it: the processor predicts that branch.
 *   - Modes with large frames run two states in turn over one stream of words, which hides the latency of each.
 *
 * Decoding is total. Work and memory depend on the model's shape, never on what a payload claims: every pull reads at
 * most one word, and each symbol costs at most three pulls.
 *
 * In this file what its parts share; _rans_tables.c prepares tables, _rans_coder.c pushes and pulls, _rans_updates.c
 * codes the updates of models with the same ANS, _rans.c is what Python sees of it.
 */
#ifndef HEADWATER_RANS_H
#define HEADWATER_RANS_H

#include <stddef.h>
#include <stdint.h>

#define TOTAL 65536u                     /* slots of a table */
#define LOW ((uint64_t)1 << 31)          /* a state below it takes the next word in */
#define BUCKETS 256u                     /* of 256 slots each */
#define ESCAPE_SYMBOL ((int32_t)1 << 20) /* out of int16's range */

/* What decoding can find; coder.py has the words for each. */
enum { OK = 0, TRUNCATED = 1, TRAILING = 2, DAMAGED = 3, BAD_ESCAPE = 4, NO_MEMORY = 5 };

/* For encoding: one symbol's slots. */
typedef struct {
    uint64_t limit;      /* the state has to be below it before a push: frequency << 47, 0 where frequency is 1 */
    uint64_t reciprocal; /* ceil(2^(64 + shift) / frequency) */
    uint32_t complement; /* 65536 - frequency */
    uint16_t start;
    uint8_t shift;
} Push;

typedef struct {
    Push *symbols; /* [size + 1], the last one ESCAPE */
    int32_t low;
    uint32_t size;
} PushTable;

/* For decoding: one of the two symbols of a bucket. */
typedef struct {
    uint16_t frequency, start;
    int16_t symbol;
    uint16_t split; /* in a bucket's first: the slot at which its second begins */
} Pull;

typedef struct {
    uint16_t frequency, start;
    int32_t symbol; /* or ESCAPE_SYMBOL */
} Slots;

typedef struct {
    /* The two symbols of each bucket. Where a bucket has more, or ESCAPE: frequency 0 in both, and its slots have to
     * be searched for from index `symbol` of twos. */
    Pull ones[BUCKETS], twos[BUCKETS];
    Slots *slots; /* [size + 1] in falling order of frequency */
    int32_t low, high;
} PullTable;

typedef struct {
    size_t modes, channels, groups, plane; /* plane: H * W */
    uint16_t *frequencies;
    uint32_t *starts;       /* [modes * channels + 1] */
    int16_t *low;           /* [modes * channels] */
    float *step;            /* [modes * channels] */
    uint8_t *lanes;         /* [modes], 1 or 2 */
    uint8_t *mode_channels; /* [modes] */
    uint8_t *group_ends;    /* [groups] */
    PushTable **push;       /* [modes], each [channels of the mode], or NULL until it is first used: a device never */
    PullTable **pull;       /* makes the tables for decoding, a server none for encoding */
} Model;

/* _rans_tables.c */

/* The tables of a mode, made when first asked for; NULL if there is no memory. Not for two threads at a time. */
const PushTable *push_tables(Model *model, size_t mode);
const PullTable *pull_tables(Model *model, size_t mode);
void free_tables(Model *model);

/* _rans_coder.c */

/* Bytes that any payload of the model fits in. */
size_t encode_room(const Model *model);

/* Encode into the bytes before `end`; returns the payload's first. Fills group_ends [groups] with the bytes up to the
 * end of each group. */
uint8_t *encode_frame(const Model *model, size_t mode, const PushTable *tables, const int16_t *symbols, uint8_t *end,
                      size_t *group_ends);

/* Decode the first `channels` channels; returns a status. Where `latent` is given the dequantised values go there and
 * `symbols` is room for one channel; else the symbols go to `symbols`, which has room for all. */
int decode_frame(const Model *model, size_t mode, const PullTable *tables, size_t channels, const uint8_t *payload,
                 size_t size, int16_t *symbols, float *latent);

/* _rans_updates.c */

/* What the integers of an array can be: HAS_ZEROS alone 0 and 1, HAS_SIGNS alone -1 and 1, with HAS_SIZES up to 127. */
enum { HAS_ZEROS = 1, HAS_SIGNS = 2, HAS_SIZES = 4 };

/* One array of an update. */
typedef struct {
    int8_t *values;      /* [rows, columns] */
    const uint8_t *live; /* [rows, columns], 0 where both ends know a zero, which is not coded; or NULL */
    size_t rows, columns;
    int alphabet;
} Integers;

/* Encode arrays one after the other; returns malloc'ed bytes, or NULL if there is no memory. */
uint8_t *encode_integers(const Integers *arrays, size_t count, size_t *size);

/* Decode arrays, whose values have to be 0 before; returns a status. */
int decode_integers(const Integers *arrays, size_t count, const uint8_t *data, size_t size);

#endif
