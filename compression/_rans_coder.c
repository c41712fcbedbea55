/* Pushing a latent's symbols into a payload and pulling them out again; see _rans.h. */
#include "_rans.h"

#include <string.h>

#define MAX_ESCAPE_BITS 17u     /* bits of the largest distance that an int16 can be out of a table */
#define SKEWED 45000u           /* slots of the first symbol from which on guessing it is faster; measured */

#if defined(__GNUC__)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define INLINE static inline __attribute__((always_inline))
#else
#define UNLIKELY(condition) (condition)
#define INLINE static inline
#endif

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
INLINE uint8_t *push_plane(uint64_t states[2], int lanes, PushTable table, const int16_t *symbols, size_t count,
                           uint8_t *out) {
    uint64_t even = states[0], odd = states[1];
    size_t i = count;
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

/* The first state in few bytes, the second in 8, before the words: docs/wire-format.md says how a decoder tells them
 * apart. */
static uint8_t *close_payload(const uint64_t states[2], int lanes, int has_words, uint8_t *out) {
    unsigned head = state_bytes(states[0]);
    if (head < 5 && (lanes == 2 || has_words)) head = 5;
    if (lanes == 2) out = emit(emit(out, states[1] >> 32), states[1]);
    out -= head;
    for (unsigned i = 0; i < head; i++) out[i] = (uint8_t)(states[0] >> (8 * i));
    return out;
}

size_t encode_room(const Model *model) {
    /* A symbol adds at most 37 bits (ESCAPE 16, length 5, distance 16), and a word goes out for each 32 bits added. */
    return model->channels * model->plane * 5 + 64;
}

uint8_t *encode_frame(const Model *model, size_t mode, const PushTable *tables, const int16_t *symbols, uint8_t *end,
                      size_t *group_ends) {
    int lanes = model->lanes[mode];
    uint64_t states[2] = {lanes == 2 ? LOW : 0, LOW};
    uint8_t *out = end;
    size_t channels = model->mode_channels[mode], group = model->groups - 1;
    for (size_t g = 0; g < model->groups; g++) group_ends[g] = 0; /* for now: the bytes after a group's end */
    while (group > 0 && model->group_ends[group - 1] >= channels) group--; /* these have no channels in this mode */
    for (size_t c = channels; c-- > 0;) {
        const int16_t *plane = symbols + c * model->plane;
        out = lanes == 1 ? push_plane(states, 1, tables[c], plane, model->plane, out)
                         : push_plane(states, 2, tables[c], plane, model->plane, out);
        if (group > 0 && model->group_ends[group - 1] == c) group_ends[--group] = (size_t)(end - out);
    }
    out = close_payload(states, lanes, out != end, out);
    for (size_t g = 0; g < model->groups; g++) group_ends[g] = (size_t)(end - out) - group_ends[g];
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
    uint32_t slot = (uint32_t)(x & (TOTAL - 1)), bucket = slot / (TOTAL / BUCKETS);
    if (skewed && slot < first.frequency) {
        *state = refill(first.frequency * (x >> 16) + slot, words);
        return first.symbol;
    }
    const Pull *one = table->ones + bucket, *two = table->twos + bucket;
    if (UNLIKELY(one->frequency == 0)) return pull_rare(state, table, (uint16_t)two->symbol, words);
    /* Both are pulled and one is taken, by a conditional move: a branch would be guessed wrong too often, and a choice
     * before the multiplication would lengthen what the next symbol waits for. */
    uint64_t of_one = one->frequency * (x >> 16) + (slot - one->start);
    uint64_t of_two = two->frequency * (x >> 16) + (slot - two->start);
    int second = slot >= one->split;
    *state = refill(second ? of_two : of_one, words);
    return second ? two->symbol : one->symbol;
}

/* Pull one channel's symbols; whether every escape was a good one. */
INLINE int pull_plane(uint64_t states[2], int lanes, int skewed, const PullTable *table, Words *words, int16_t *symbols,
                      size_t count) {
    uint64_t even = states[0], odd = states[1];
    Words local = *words;
    Pull first = table->twos[0];
    int32_t worst = 0;
    size_t i = 0;
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
                    size_t count) {
    const Pull *first = &table->twos[0]; /* frequency 0 or that of the symbol at slot 0 */
    if (first->frequency >= SKEWED) {
        return lanes == 1 ? pull_plane(states, 1, 1, table, words, symbols, count)
                          : pull_plane(states, 2, 1, table, words, symbols, count);
    }
    return lanes == 1 ? pull_plane(states, 1, 0, table, words, symbols, count)
                      : pull_plane(states, 2, 0, table, words, symbols, count);
}

/* Split a payload into states and words. */
static int open_payload(const uint8_t *payload, size_t size, int lanes, uint64_t states[2], Words *words) {
    size_t extra = lanes == 2 ? 8 : 0;
    if (lanes == 2 && size < 8 + 5) return TRUNCATED;
    size_t rest = size - extra;
    size_t head = rest <= 8 ? rest : 5 + (rest - 5) % 4;
    states[0] = states[1] = 0;
    for (size_t i = 0; i < head; i++) states[0] |= (uint64_t)payload[i] << (8 * i);
    for (size_t i = 0; i < extra; i++) states[1] |= (uint64_t)payload[head + i] << (8 * i);
    *words = (Words){payload + head + extra, payload + size};
    return (states[0] | states[1]) >> 63 ? DAMAGED : OK;
}

int decode_frame(const Model *model, size_t mode, const PullTable *tables, size_t channels, const uint8_t *payload,
                 size_t size, int16_t *symbols, float *latent) {
    int lanes = model->lanes[mode];
    uint64_t states[2], rest_state = lanes == 2 ? LOW : 0;
    Words words;
    int status = open_payload(payload, size, lanes, states, &words);
    for (size_t c = 0; status == OK && c < channels; c++) {
        int16_t *plane = latent == NULL ? symbols + c * model->plane : symbols;
        if (!pull_any(states, lanes, tables + c, &words, plane, model->plane)) return BAD_ESCAPE;
        if (latent == NULL) continue;
        float step = model->step[mode * model->channels + c], *out = latent + c * model->plane;
        for (size_t i = 0; i < model->plane; i++) out[i] = (float)plane[i] * step;
    }
    if (status != OK || channels < model->mode_channels[mode]) return status;
    if (words.next != words.end) return TRAILING;
    return states[0] == rest_state && (lanes == 1 || states[1] == rest_state) ? OK : DAMAGED;
}
