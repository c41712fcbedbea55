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
 *     each but for the rarest, and a pull is one load and one choice between two.
 *   - Where one symbol takes most slots a pull guesses it: the processor predicts that branch.
 *   - Modes with large frames run two states in turn over one stream of words, which hides the latency of each.
 *
 * Decoding is total. Work and memory depend on the model's shape, never on what a payload claims: every pull reads at
 * most one word, and each symbol costs at most three pulls.
 *
 * Tables of a mode are made when it is first used: a device never makes those for decoding, a server none for encoding.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TOTAL 65536u                  /* slots of a table */
#define LOW ((uint64_t)1 << 31)       /* a state below it takes the next word in */
#define BUCKETS 256u                  /* of 256 slots each */
#define ESCAPE_SYMBOL ((int32_t)1 << 20) /* out of int16's range */
#define MAX_ESCAPE_BITS 17u           /* bits of the largest distance that an int16 can be out of a table */
#define SKEWED 45000u                 /* slots of the first symbol from which on guessing it is faster; measured */
#define CAPSULE "headwater.compression._rans.Model"

#if defined(__GNUC__)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define INLINE static inline __attribute__((always_inline))
#else
#define UNLIKELY(condition) (condition)
#define INLINE static inline
#endif

/* What decoding can find; coder.py has the words for each. */
enum { OK = 0, TRUNCATED = 1, TRAILING = 2, DAMAGED = 3, BAD_ESCAPE = 4 };

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

typedef struct {
    uint16_t frequency, start;
    int16_t symbol;
    uint16_t split; /* in a bucket's first entry: the slot at which its second one begins */
} Pull;

typedef struct {
    int32_t symbol; /* or ESCAPE_SYMBOL */
    uint16_t frequency, start;
} Slots;

typedef struct {
    Pull buckets[BUCKETS][2]; /* frequency 0 in the second, split 0 in the first: look in slots from index `symbol` */
    Slots *slots;             /* [size + 1] in falling order of frequency */
    int32_t low, high;
} PullTable;

typedef struct {
    Py_ssize_t modes, channels, groups, plane;
    uint16_t *frequencies;
    uint32_t *starts;
    int16_t *low;
    float *step;
    uint8_t *lanes, *mode_channels, *group_ends;
    PushTable **push;  /* [modes], each [channels of the mode] or NULL until first used */
    PullTable **pull;  /* the same */
    uint8_t *scratch;  /* one encoder's words; taken and given back while the GIL is held */
} Model;

/* ---------------------------------------------------------------- tables */

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Indices of a table in the order in which they get slots: falling frequency, then rising index. NULL: no memory. */
static uint64_t *slot_order(const uint16_t *frequencies, uint32_t count) {
    uint64_t *order = malloc(count * sizeof *order);
    if (order == NULL) return NULL;
    for (uint32_t i = 0; i < count; i++) order[i] = ((uint64_t)(TOTAL - frequencies[i]) << 32) | i;
    qsort(order, count, sizeof *order, by_value);
    for (uint32_t i = 0; i < count; i++) order[i] &= 0xffffffffu;
    return order;
}

static Push push_of(uint32_t frequency, uint32_t start) {
    Push push = {0, 0, TOTAL - frequency, (uint16_t)start, 0};
    if (frequency == 1) return push; /* its reciprocal would need a 65th bit: push() knows it by limit 0 */
    while ((2u << push.shift) < frequency) push.shift++;
    /* ceil(2^(64 + shift) / frequency) by long division, in two halves of 32 bits below the leading one. */
    uint64_t high = ((uint64_t)1 << (32 + push.shift)) / frequency, rest = ((uint64_t)1 << (32 + push.shift)) % frequency;
    uint64_t next = (rest << 32) + frequency - 1;
    push.reciprocal = (high << 32) + next / frequency;
    push.limit = (uint64_t)frequency << 47;
    return push;
}

static int fill_push(PushTable *table, const uint16_t *frequencies, uint32_t count, int32_t low) {
    uint64_t *order = slot_order(frequencies, count);
    table->symbols = malloc(count * sizeof *table->symbols);
    table->low = low;
    table->size = count - 1;
    if (order != NULL && table->symbols != NULL) {
        for (uint32_t i = 0, start = 0; i < count; i++) {
            table->symbols[order[i]] = push_of(frequencies[order[i]], start);
            start += frequencies[order[i]];
        }
    }
    free(order);
    return order != NULL && table->symbols != NULL;
}

static Pull pull_of(const Slots *slots) {
    return (Pull){slots->frequency, slots->start, (int16_t)slots->symbol, 0};
}

/* One bucket; `first` is the index of the symbol that owns its first slot. */
static void fill_bucket(Pull bucket[2], const Slots *slots, uint32_t count, uint32_t first, uint32_t bucket_end) {
    const Slots *one = slots + first, *two = first + 1 < count ? one + 1 : one;
    uint32_t one_end = (uint32_t)one->start + one->frequency, two_end = (uint32_t)two->start + two->frequency;
    int needs_two = one_end < bucket_end;
    if (one->symbol == ESCAPE_SYMBOL || (needs_two && (two->symbol == ESCAPE_SYMBOL || two_end < bucket_end))) {
        bucket[0] = (Pull){0, 0, 0, 0};
        bucket[1] = (Pull){0, 0, (int16_t)first, 0};
        return;
    }
    bucket[0] = pull_of(one);
    bucket[1] = pull_of(needs_two ? two : one);
    bucket[0].split = needs_two ? (uint16_t)one_end : 0; /* 0: always the second, which is the same symbol */
}

static int fill_pull(PullTable *table, const uint16_t *frequencies, uint32_t count, int32_t low) {
    uint64_t *order = slot_order(frequencies, count);
    table->slots = malloc(count * sizeof *table->slots);
    table->low = low;
    table->high = low + (int32_t)count - 2;
    if (order != NULL && table->slots != NULL) {
        for (uint32_t i = 0, start = 0; i < count; i++) {
            int32_t symbol = order[i] == count - 1 ? ESCAPE_SYMBOL : low + (int32_t)order[i];
            table->slots[i] = (Slots){symbol, frequencies[order[i]], (uint16_t)start};
            start += frequencies[order[i]];
        }
        for (uint32_t bucket = 0, first = 0; bucket < BUCKETS; bucket++) {
            uint32_t begin = bucket * (TOTAL / BUCKETS), end = begin + TOTAL / BUCKETS;
            while ((uint32_t)table->slots[first].start + table->slots[first].frequency <= begin) first++;
            fill_bucket(table->buckets[bucket], table->slots, count, first, end);
        }
    }
    free(order);
    return order != NULL && table->slots != NULL;
}

static void free_push(PushTable *tables, Py_ssize_t channels) {
    if (tables == NULL) return;
    for (Py_ssize_t c = 0; c < channels; c++) free(tables[c].symbols);
    free(tables);
}

static void free_pull(PullTable *tables, Py_ssize_t channels) {
    if (tables == NULL) return;
    for (Py_ssize_t c = 0; c < channels; c++) free(tables[c].slots);
    free(tables);
}

static const uint16_t *table_at(const Model *model, Py_ssize_t index, uint32_t *count) {
    *count = model->starts[index + 1] - model->starts[index];
    return model->frequencies + model->starts[index];
}

/* The tables of a mode, made when first asked for. The caller holds the GIL. NULL: no memory, exception set. */
static const PushTable *push_tables(Model *model, Py_ssize_t mode) {
    if (model->push[mode] != NULL) return model->push[mode];
    Py_ssize_t channels = model->mode_channels[mode];
    PushTable *tables = calloc((size_t)channels, sizeof *tables);
    int ok = tables != NULL;
    for (Py_ssize_t c = 0; ok && c < channels; c++) {
        Py_ssize_t index = mode * model->channels + c;
        uint32_t count;
        const uint16_t *frequencies = table_at(model, index, &count);
        ok = fill_push(tables + c, frequencies, count, model->low[index]);
    }
    if (!ok) {
        free_push(tables, channels);
        return (const PushTable *)PyErr_NoMemory();
    }
    return model->push[mode] = tables;
}

static const PullTable *pull_tables(Model *model, Py_ssize_t mode) {
    if (model->pull[mode] != NULL) return model->pull[mode];
    Py_ssize_t channels = model->mode_channels[mode];
    PullTable *tables = calloc((size_t)channels, sizeof *tables);
    int ok = tables != NULL;
    for (Py_ssize_t c = 0; ok && c < channels; c++) {
        Py_ssize_t index = mode * model->channels + c;
        uint32_t count;
        const uint16_t *frequencies = table_at(model, index, &count);
        ok = fill_pull(tables + c, frequencies, count, model->low[index]);
    }
    if (!ok) {
        free_pull(tables, channels);
        return (const PullTable *)PyErr_NoMemory();
    }
    return model->pull[mode] = tables;
}

/* ---------------------------------------------------------------- encoding */

/* Words are written from the buffer's end to its beginning: the decoder reads forward what was pushed last. */
INLINE uint8_t *emit(uint8_t *out, uint64_t state) {
    out -= 4;
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(state >> (8 * i));
    return out;
}

INLINE uint64_t divide(uint64_t state, const Push *push) {
#if defined(__SIZEOF_INT128__)
    return (uint64_t)(((unsigned __int128)state * push->reciprocal) >> 64) >> push->shift;
#else
    return state / (TOTAL - push->complement);
#endif
}

INLINE uint64_t push_symbol(uint64_t state, const Push *push, uint8_t **out) {
    if (UNLIKELY(state >= push->limit)) {
        if (push->limit == 0) {
            if (state >> 47) {
                *out = emit(*out, state);
                state >>= 32;
            }
            return state << 16 | push->start;
        }
        *out = emit(*out, state);
        state >>= 32;
    }
    return state + push->start + divide(state, push) * push->complement;
}

static uint64_t push_raw(uint64_t state, uint32_t value, unsigned bits, uint8_t **out) {
    if (state >> (63 - bits)) {
        *out = emit(*out, state);
        state >>= 32;
    }
    return state << bits | value;
}

/* A symbol outside its table, in the reverse of the order in which it is pulled: ESCAPE, 5 bits with the length of the
 * distance, the distance without its leading one. */
static uint64_t push_escape(uint64_t state, const PushTable *table, int32_t symbol, uint8_t **out) {
    int32_t high = table->low + (int32_t)table->size - 1;
    uint32_t distance = symbol > high ? (uint32_t)(symbol - high - 1) * 2 : (uint32_t)(table->low - 1 - symbol) * 2 + 1;
    unsigned bits = 0;
    while (distance >> bits) bits++;
    if (bits > 1) state = push_raw(state, distance - (1u << (bits - 1)), bits - 1, out);
    state = push_raw(state, bits, 5, out);
    return push_symbol(state, table->symbols + table->size, out);
}

INLINE uint64_t push_one(uint64_t state, const PushTable *table, int32_t symbol, uint8_t **out) {
    uint32_t index = (uint32_t)(symbol - table->low);
    if (UNLIKELY(index >= table->size)) return push_escape(state, table, symbol, out);
    return push_symbol(state, table->symbols + index, out);
}

/* Push the symbols of one channel, last to first; even ones go to states[0], odd ones to states[lanes - 1]. */
INLINE uint8_t *push_plane(uint64_t states[2], int lanes, PushTable table, const int16_t *symbols, Py_ssize_t count,
                           uint8_t *out) {
    uint64_t even = states[0], odd = states[1];
    Py_ssize_t i = count;
    if (lanes == 1) {
        while (i > 0) even = push_one(even, &table, symbols[--i], &out);
    } else {
        if (i & 1) even = push_one(even, &table, symbols[--i], &out);
        for (; i > 0; i -= 2) {
            odd = push_one(odd, &table, symbols[i - 1], &out);
            even = push_one(even, &table, symbols[i - 2], &out);
        }
    }
    states[0] = even;
    states[1] = odd;
    return out;
}

static unsigned state_bytes(uint64_t state) {
    unsigned bytes = 0;
    while (bytes < 8 && state >> (8 * bytes)) bytes++;
    return bytes;
}

/* Returns the payload's first byte; it ends at `end`. Fills group_ends[groups] with the bytes that each prefix takes. */
static uint8_t *encode_frame(const Model *model, Py_ssize_t mode, const PushTable *tables, const int16_t *symbols,
                             uint8_t *end, Py_ssize_t *group_ends) {
    int lanes = model->lanes[mode];
    uint64_t states[2] = {lanes == 2 ? LOW : 0, LOW};
    uint8_t *out = end;
    Py_ssize_t group = model->groups - 1, channels = model->mode_channels[mode];
    while (group > 0 && model->group_ends[group - 1] >= channels) group_ends[group--] = 0; /* beyond this mode's width */
    group_ends[group] = 0;
    for (Py_ssize_t c = channels - 1; c >= 0; c--) {
        const int16_t *plane = symbols + c * model->plane;
        out = lanes == 1 ? push_plane(states, 1, tables[c], plane, model->plane, out)
                         : push_plane(states, 2, tables[c], plane, model->plane, out);
        if (group > 0 && model->group_ends[group - 1] == c) group_ends[--group] = end - out; /* bytes after its end */
    }
    unsigned head = state_bytes(states[0]);
    if (out != end && head < 5) head = 5; /* so that the payload's length tells the state's, see wire-format.md */
    if (lanes == 2) {
        if (head < 5) head = 5;
        out = emit(emit(out, states[1] >> 32), states[1]);
    }
    out -= head;
    for (unsigned i = 0; i < head; i++) out[i] = (uint8_t)(states[0] >> (8 * i));
    for (group = 0; group < model->groups; group++) group_ends[group] = (end - out) - group_ends[group];
    return out;
}

/* ---------------------------------------------------------------- decoding */

typedef struct {
    const uint8_t *next, *end;
} Words;

INLINE uint64_t refill(uint64_t state, Words *words) {
    if (UNLIKELY(state < LOW) && words->next != words->end) {
        const uint8_t *p = words->next;
        words->next = p + 4;
        state = state << 32 | p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    return state;
}

static uint32_t pull_raw(uint64_t *state, unsigned bits, Words *words) {
    uint32_t value = (uint32_t)(*state & (((uint64_t)1 << bits) - 1));
    *state = refill(*state >> bits, words);
    return value;
}

/* What follows ESCAPE; ESCAPE_SYMBOL if it is nothing that push_escape writes. */
static int32_t pull_escape(uint64_t *state, const PullTable *table, Words *words) {
    unsigned bits = pull_raw(state, 5, words);
    if (bits > MAX_ESCAPE_BITS) return ESCAPE_SYMBOL;
    uint32_t distance = bits;
    if (bits > 1) distance = 1u << (bits - 1) | pull_raw(state, bits - 1, words);
    int32_t steps = (int32_t)(distance >> 1);
    int32_t symbol = distance & 1 ? table->low - 1 - steps : table->high + 1 + steps;
    return symbol < INT16_MIN || symbol > INT16_MAX ? ESCAPE_SYMBOL : symbol;
}

/* A slot in a bucket of more than two symbols, or of ESCAPE. */
static int32_t pull_rare(uint64_t *state, const PullTable *table, uint32_t first, Words *words) {
    uint32_t slot = (uint32_t)(*state & (TOTAL - 1));
    const Slots *slots = table->slots + first;
    while (slot >= (uint32_t)slots->start + slots->frequency) slots++;
    *state = refill(slots->frequency * (*state >> 16) + slot - slots->start, words);
    return slots->symbol == ESCAPE_SYMBOL ? pull_escape(state, table, words) : slots->symbol;
}

/* A constant `skewed` makes two functions of this: one that guesses the first symbol, one that does not. */
INLINE int32_t pull_one(uint64_t *state, const PullTable *table, int skewed, Pull first, Words *words) {
    uint64_t x = *state;
    uint32_t slot = (uint32_t)(x & (TOTAL - 1));
    if (skewed && slot < first.frequency) {
        *state = refill(first.frequency * (x >> 16) + slot, words);
        return first.symbol;
    }
    const Pull *bucket = table->buckets[slot / (TOTAL / BUCKETS)];
    uint64_t one, two;
    memcpy(&one, bucket, 8);
    memcpy(&two, bucket + 1, 8);
    uint64_t chosen = slot >= bucket->split ? two : one;
    Pull pull;
    memcpy(&pull, &chosen, 8);
    if (UNLIKELY(pull.frequency == 0)) return pull_rare(state, table, (uint16_t)pull.symbol, words);
    *state = refill(pull.frequency * (x >> 16) + slot - pull.start, words);
    return pull.symbol;
}

/* Pull one channel's symbols; whether every escape was a good one. */
INLINE int pull_plane(uint64_t states[2], int lanes, int skewed, const PullTable *table, Words *words, int16_t *symbols,
                      Py_ssize_t count) {
    uint64_t even = states[0], odd = states[1];
    Words local = *words;
    Pull first = table->buckets[0][1];
    int32_t worst = 0;
    Py_ssize_t i = 0;
    if (lanes == 2) {
        for (; i + 2 <= count; i += 2) {
            int32_t one = pull_one(&even, table, skewed, first, &local);
            int32_t two = pull_one(&odd, table, skewed, first, &local);
            symbols[i] = (int16_t)one;
            symbols[i + 1] = (int16_t)two;
            worst |= (one == ESCAPE_SYMBOL) | (two == ESCAPE_SYMBOL);
        }
    }
    for (; i < count; i++) {
        int32_t one = pull_one(&even, table, skewed, first, &local);
        symbols[i] = (int16_t)one;
        worst |= one == ESCAPE_SYMBOL;
    }
    states[0] = even;
    states[1] = odd;
    *words = local;
    return !worst;
}

static int pull_any(uint64_t states[2], int lanes, const PullTable *table, Words *words, int16_t *symbols,
                    Py_ssize_t count) {
    const Pull *first = &table->buckets[0][1]; /* the first symbol has at least a bucket, unless frequency is 0 */
    if (first->frequency >= SKEWED) {
        return lanes == 1 ? pull_plane(states, 1, 1, table, words, symbols, count)
                          : pull_plane(states, 2, 1, table, words, symbols, count);
    }
    return lanes == 1 ? pull_plane(states, 1, 0, table, words, symbols, count)
                      : pull_plane(states, 2, 0, table, words, symbols, count);
}

/* Split a payload into states and words. */
static int open_payload(const uint8_t *payload, Py_ssize_t size, int lanes, uint64_t states[2], Words *words) {
    Py_ssize_t extra = lanes == 2 ? 8 : 0, rest = size - extra;
    if (lanes == 2 && rest < 5) return TRUNCATED;
    Py_ssize_t head = rest <= 8 ? rest : 5 + (rest - 5) % 4;
    states[0] = states[1] = 0;
    for (Py_ssize_t i = 0; i < head; i++) states[0] |= (uint64_t)payload[i] << (8 * i);
    for (Py_ssize_t i = 0; i < extra; i++) states[1] |= (uint64_t)payload[head + i] << (8 * i);
    *words = (Words){payload + head + extra, payload + size};
    return (states[0] | states[1]) >> 63 ? DAMAGED : OK;
}

/* Decode the first `channels` channels. Where `steps` is given they become float32 in `latent`, `symbols` being room
 * for one channel; else they go to `symbols`, which has room for all. */
static int decode_frame(const Model *model, Py_ssize_t mode, const PullTable *tables, Py_ssize_t channels,
                        const uint8_t *payload, Py_ssize_t size, int16_t *symbols, float *latent) {
    int lanes = model->lanes[mode];
    uint64_t states[2], rest_state = lanes == 2 ? LOW : 0;
    Words words;
    int status = open_payload(payload, size, lanes, states, &words);
    for (Py_ssize_t c = 0; status == OK && c < channels; c++) {
        int16_t *plane = latent == NULL ? symbols + c * model->plane : symbols;
        if (!pull_any(states, lanes, tables + c, &words, plane, model->plane)) return BAD_ESCAPE;
        if (latent == NULL) continue;
        float step = model->step[mode * model->channels + c], *out = latent + c * model->plane;
        for (Py_ssize_t i = 0; i < model->plane; i++) out[i] = (float)plane[i] * step;
    }
    if (status != OK || channels < model->mode_channels[mode]) return status;
    if (words.next != words.end) return TRAILING;
    return states[0] == rest_state && (lanes == 1 || states[1] == rest_state) ? OK : DAMAGED;
}

static Py_ssize_t channels_of(const Model *model, Py_ssize_t mode, Py_ssize_t groups) {
    Py_ssize_t all = model->mode_channels[mode], some = model->group_ends[groups - 1];
    return some < all ? some : all;
}

/* ---------------------------------------------------------------- Python */

static void free_model(PyObject *capsule) {
    Model *model = PyCapsule_GetPointer(capsule, CAPSULE);
    if (model == NULL) return;
    for (Py_ssize_t m = 0; model->push != NULL && model->pull != NULL && m < model->modes; m++) {
        free_push(model->push[m], model->mode_channels[m]);
        free_pull(model->pull[m], model->mode_channels[m]);
    }
    free(model->push);
    free(model->pull);
    free(model->frequencies);
    free(model->starts);
    free(model->low);
    free(model->step);
    free(model->lanes);
    free(model->mode_channels);
    free(model->group_ends);
    free(model->scratch);
    free(model);
}

static int check_model(const Model *model, const Py_buffer *views) {
    const Py_ssize_t tables = model->modes * model->channels;
    if (model->modes < 1 || model->channels < 1 || model->channels > 255 || model->groups < 1 || model->plane < 1) return 0;
    if (views[1].len != (tables + 1) * 4 || views[2].len != tables * 2 || views[3].len != tables * 4) return 0;
    if (views[4].len != model->modes || views[5].len != model->modes) return 0;
    const uint32_t *starts = views[1].buf;
    const uint16_t *frequencies = views[0].buf;
    for (Py_ssize_t m = 0; m < model->modes; m++) {
        if (((uint8_t *)views[5].buf)[m] > model->channels) return 0;
        for (Py_ssize_t c = 0; c < ((uint8_t *)views[5].buf)[m]; c++) {
            uint32_t begin = starts[m * model->channels + c], end = starts[m * model->channels + c + 1], sum = 0;
            if (end < begin + 2 || end - begin > TOTAL || end > views[0].len / 2) return 0;
            for (uint32_t i = begin; i < end; i++) sum += frequencies[i] == 0 ? 2 * TOTAL : frequencies[i];
            if (sum != TOTAL) return 0;
        }
    }
    return 1;
}

static void *copy_of(const Py_buffer *view) {
    void *copy = malloc(view->len ? (size_t)view->len : 1);
    return copy == NULL ? NULL : memcpy(copy, view->buf, (size_t)view->len);
}

static int take_views(Model *model, const Py_buffer *views) {
    model->frequencies = copy_of(views);
    model->starts = copy_of(views + 1);
    model->low = copy_of(views + 2);
    model->step = copy_of(views + 3);
    model->lanes = copy_of(views + 4);
    model->mode_channels = copy_of(views + 5);
    model->group_ends = copy_of(views + 6);
    model->push = calloc((size_t)model->modes, sizeof *model->push);
    model->pull = calloc((size_t)model->modes, sizeof *model->pull);
    return model->frequencies && model->starts && model->low && model->step && model->lanes && model->mode_channels &&
           model->group_ends && model->push && model->pull;
}

static PyObject *prepare(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer views[7];
    Py_ssize_t plane;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*n", views, views + 1, views + 2, views + 3, views + 4, views + 5, views + 6,
                          &plane))
        return NULL;
    PyObject *capsule = NULL;
    Model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        PyErr_NoMemory();
    } else if ((capsule = PyCapsule_New(model, CAPSULE, free_model)) == NULL) {
        free(model);
    } else {
        model->modes = views[4].len;
        model->channels = model->modes ? views[2].len / 2 / model->modes : 0;
        model->groups = views[6].len;
        model->plane = plane;
        int valid = check_model(model, views);
        if (!valid || !take_views(model, views)) {
            if (valid) PyErr_NoMemory();
            else PyErr_SetString(PyExc_ValueError, "tables are inconsistent: check them with PriorTables");
            Py_DECREF(capsule);
            capsule = NULL;
        }
    }
    for (int i = 0; i < 7; i++) PyBuffer_Release(views + i);
    return capsule;
}

static Model *model_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE); }

/* An index below `bound`, or -1 with an exception set. */
static Py_ssize_t index_of(PyObject *object, Py_ssize_t bound, const char *what) {
    Py_ssize_t index = PyNumber_AsSsize_t(object, PyExc_OverflowError);
    if (index == -1 && PyErr_Occurred()) return -1;
    if (index < 0 || index >= bound) {
        PyErr_Format(PyExc_ValueError, "%s is %zd; want 0 to %zd", what, index, bound - 1);
        return -1;
    }
    return index;
}

static PyObject *ends_tuple(const Py_ssize_t *ends, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *end = PyLong_FromSsize_t(ends[i]);
        if (end == NULL) Py_CLEAR(tuple);
        else PyTuple_SetItem(tuple, i, end);
    }
    return tuple;
}

static PyObject *encode_symbols(Model *model, Py_ssize_t mode, const Py_buffer *symbols) {
    const PushTable *tables = push_tables(model, mode);
    if (tables == NULL) return NULL;
    /* A symbol adds at most 37 bits (ESCAPE 16, length 5, distance 16), and a word goes out for each 32 bits added. */
    Py_ssize_t room = model->channels * model->plane * 5 + 64;
    uint8_t *scratch = model->scratch != NULL ? model->scratch : malloc((size_t)room);
    model->scratch = NULL;
    if (scratch == NULL) return PyErr_NoMemory();
    Py_ssize_t ends[255];
    uint8_t *out;
    Py_BEGIN_ALLOW_THREADS
    out = encode_frame(model, mode, tables, symbols->buf, scratch + room, ends);
    Py_END_ALLOW_THREADS
    PyObject *payload = PyBytes_FromStringAndSize((char *)out, scratch + room - out);
    if (model->scratch == NULL) model->scratch = scratch;
    else free(scratch);
    PyObject *group_ends = payload == NULL ? NULL : ends_tuple(ends, model->groups);
    PyObject *result = group_ends == NULL ? NULL : PyTuple_Pack(2, payload, group_ends);
    Py_XDECREF(payload);
    Py_XDECREF(group_ends);
    return result;
}

static PyObject *encode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 3) return PyErr_Format(PyExc_TypeError, "encode takes 3 arguments, got %zd", count);
    Model *model = model_of(args[0]);
    Py_ssize_t mode = model == NULL ? -1 : index_of(args[2], model->modes, "mode");
    Py_buffer symbols;
    if (mode < 0 || PyObject_GetBuffer(args[1], &symbols, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *result = NULL;
    if (symbols.len != model->mode_channels[mode] * model->plane * 2)
        PyErr_Format(PyExc_ValueError, "symbols have %zd bytes", symbols.len);
    else
        result = encode_symbols(model, mode, &symbols);
    PyBuffer_Release(&symbols);
    return result;
}

static PyObject *decode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "decode takes 5 arguments, got %zd", count);
    Model *model = model_of(args[0]);
    Py_ssize_t mode = model == NULL ? -1 : index_of(args[2], model->modes, "mode");
    Py_ssize_t groups = mode < 0 ? -1 : index_of(args[3], model->groups + 1, "groups");
    char *payload;
    Py_ssize_t size;
    if (groups < 0 || PyBytes_AsStringAndSize(args[1], &payload, &size) < 0) return NULL;
    if (groups == 0) return PyErr_Format(PyExc_ValueError, "groups is 0; want 1 to %zd", model->groups);
    const PullTable *tables = pull_tables(model, mode);
    Py_buffer out;
    if (tables == NULL || PyObject_GetBuffer(args[4], &out, PyBUF_WRITABLE) < 0) return NULL;
    Py_ssize_t channels = channels_of(model, mode, groups);
    int status = -1;
    if (out.len < channels * model->plane * 2) {
        PyErr_Format(PyExc_ValueError, "out has %zd bytes", out.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        status = decode_frame(model, mode, tables, channels, (uint8_t *)payload, size, out.buf, NULL);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&out);
    return status < 0 ? NULL : PyLong_FromLong(status);
}

typedef struct {
    const uint8_t *payload;
    Py_ssize_t size, mode, channels;
    const PullTable *tables;
    int status;
} Job;

static int fill_job(Model *model, Job *job, PyObject *payload, PyObject *mode, PyObject *groups) {
    char *bytes;
    if (PyBytes_AsStringAndSize(payload, &bytes, &job->size) < 0) return 0;
    job->payload = (uint8_t *)bytes;
    job->mode = index_of(mode, model->modes, "mode");
    Py_ssize_t g = job->mode < 0 ? -1 : index_of(groups, model->groups + 1, "groups");
    if (g < 0) return 0;
    job->channels = g == 0 ? 0 : channels_of(model, job->mode, g);
    job->tables = pull_tables(model, job->mode);
    return job->tables != NULL;
}

static void run_jobs(const Model *model, Job *jobs, Py_ssize_t count, int16_t *plane, float *latents) {
    Py_ssize_t row = model->channels * model->plane;
    for (Py_ssize_t i = 0; i < count; i++) {
        Job *job = jobs + i;
        float *latent = latents + i * row;
        job->status = decode_frame(model, job->mode, job->tables, job->channels, job->payload, job->size, plane, latent);
        Py_ssize_t filled = job->status == OK ? job->channels * model->plane : 0;
        memset(latent + filled, 0, (size_t)(row - filled) * sizeof *latent);
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

/* The three tuples keep every payload alive while the GIL is away. */
static PyObject *decode_all(Model *model, PyObject *payloads, PyObject *modes, PyObject *groups, const Py_buffer *out) {
    Py_ssize_t count = PyTuple_Size(payloads);
    if (PyTuple_Size(modes) != count || PyTuple_Size(groups) != count ||
        out->len != count * model->channels * model->plane * (Py_ssize_t)sizeof(float)) {
        PyErr_SetString(PyExc_ValueError, "payloads, modes, groups and out differ in length");
        return NULL;
    }
    Job *jobs = calloc(count ? (size_t)count : 1, sizeof *jobs);
    int16_t *plane = malloc((size_t)model->plane * sizeof *plane);
    int ok = jobs != NULL && plane != NULL;
    if (!ok) PyErr_NoMemory();
    for (Py_ssize_t i = 0; ok && i < count; i++)
        ok = fill_job(model, jobs + i, PyTuple_GetItem(payloads, i), PyTuple_GetItem(modes, i), PyTuple_GetItem(groups, i));
    if (ok) {
        Py_BEGIN_ALLOW_THREADS
        run_jobs(model, jobs, count, plane, out->buf);
        Py_END_ALLOW_THREADS
    }
    PyObject *result = ok ? statuses(jobs, count) : NULL;
    free(plane);
    free(jobs);
    return result;
}

static PyObject *decode_batch(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *sequences[3], *tuples[3] = {NULL, NULL, NULL}, *result = NULL;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OOOOw*", &capsule, sequences, sequences + 1, sequences + 2, &out)) return NULL;
    Model *model = model_of(capsule);
    int ok = model != NULL;
    for (int i = 0; ok && i < 3; i++) ok = (tuples[i] = PySequence_Tuple(sequences[i])) != NULL;
    if (ok) result = decode_all(model, tuples[0], tuples[1], tuples[2], &out);
    for (int i = 0; i < 3; i++) Py_XDECREF(tuples[i]);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"prepare", prepare, METH_VARARGS,
     "prepare(frequencies, starts, low, step, lanes, mode_channels, group_ends, plane) -> model"},
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL,
     "encode(model, symbols, mode) -> (payload, group_ends)"},
    {"decode", (PyCFunction)(void (*)(void))decode, METH_FASTCALL,
     "decode(model, payload, mode, groups, out) -> status; out is int16 [channels, H, W]"},
    {"decode_batch", decode_batch, METH_VARARGS,
     "decode_batch(model, payloads, modes, groups, out) -> statuses; out is float32 [B, C, H, W]"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rans", "Range ANS for feature frames; see coder.py", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rans(void) { return PyModuleDef_Init(&module); }
