/* Small integers of a model's update into bytes and out again: adaptive binary models in front of the range ANS of
 * _rans.h. adaptive.py is the same in plain Python, the reference; docs/updates.md says it in words.
 *
 * Integers of an array [rows, columns] are coded one after the other, each as a few yes-or-no questions: is it not
 * zero, is it negative, how long is it, its bits. A question has a context, and a context learns how often its answer
 * is yes. Most is won by the first one's: what is large in an update lies in the rows and columns of the neurons that
 * learn, so an integer's magnitude is expected to be
 *
 *     mean of its row so far * mean of its column so far / mean of its array so far
 *
 * and this expectation, in half octaves, is the context. All of it is integer arithmetic, the same on every machine.
 *
 * ANS gives back last what went in first, but a model learns forwards: so answers are kept in a block of BLOCK or few
 * more, and go into a state of its own from the block's end. */
#include "_rans.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK ((size_t)1 << 20) /* answers; 4 MiB of them */
#define MOST_ANSWERS 16         /* of one integer, rounded up */
#define LEVELS 56               /* of expectation, half an octave each */
#define NEAR 4
#define SIGNS 7 /* states of a memory of signs: -3 .. 3 */

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* ---------------------------------------------------------------- bits */

typedef struct {
    uint32_t one;   /* probability of a yes, times 2^32 */
    uint32_t count; /* of answers seen, up to SLOW or FAST */
} Bit;

#define SLOW 1023 /* answers that a context remembers, about: of whether an integer is zero, */
#define FAST 255

/* One end of a stream of answers. */
typedef struct {
    uint32_t *answers; /* encoding: slots of the answer, and the answer in the highest bit; NULL: decoding */
    size_t count;      /* in this block */
    uint32_t rates[SLOW + 1];
    uint64_t state;
    const uint8_t *next, *end;
    uint8_t *out; /* encoding: what is finished */
    size_t used, room;
    int status;
} Stream;

INLINE void learn(Stream *stream, Bit *bit, uint32_t memory, unsigned answer) {
    uint64_t rate = stream->rates[bit->count];
    if (answer) bit->one += (uint32_t)(((0xffffffffu - bit->one) * rate) >> 16);
    else bit->one -= (uint32_t)((bit->one * rate) >> 16);
    bit->count += bit->count < memory;
}

INLINE unsigned ask(Stream *stream, int decoding, Bit *bit, uint32_t memory, unsigned answer) {
    uint32_t yes = bit->one >> 16;
    yes += yes == 0; /* 1 .. 65535 */
    uint32_t no = TOTAL - yes;
    if (decoding) {
        uint64_t x = stream->state;
        uint32_t slot = (uint32_t)(x & (TOTAL - 1));
        answer = slot >= no;
        x = (answer ? yes : no) * (x >> 16) + slot - (answer ? no : 0);
        if (x < LOW && stream->end - stream->next >= 4) {
            const uint8_t *p = stream->next;
            stream->next = p + 4;
            x = x << 32 | p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        }
        stream->state = x;
    } else {
        stream->answers[stream->count] = answer ? yes | 1u << 31 : no;
    }
    stream->count++;
    learn(stream, bit, memory, answer);
    return answer;
}

/* ---------------------------------------------------------------- blocks */

static uint8_t *put(uint8_t *out, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *out++ = (uint8_t)(value >> (8 * i));
    return out;
}

/* Push a block's answers from its end; its state and words follow what is there. */
static void close_block(Stream *stream) {
    size_t most = 8 + 4 * (stream->count / 2 + 2); /* an answer adds at most 16 bits */
    if (stream->room - stream->used < most) {
        size_t room = 2 * stream->room + most;
        uint8_t *out = realloc(stream->out, room);
        if (out == NULL) {
            stream->status = NO_MEMORY;
            stream->count = 0;
            return;
        }
        stream->out = out;
        stream->room = room;
    }
    uint64_t state = LOW;
    uint8_t *end = stream->out + stream->room, *word = end;
    for (size_t i = stream->count; i-- > 0;) {
        uint32_t frequency = stream->answers[i] & 0x1ffff, start = stream->answers[i] >> 31 ? TOTAL - frequency : 0;
        if (state >= (uint64_t)frequency << 47) {
            word -= 4;
            put(word, state, 4);
            state >>= 32;
        }
        uint64_t quotient = state / frequency;
        state = (quotient << 16) + start + (state - quotient * frequency);
    }
    uint8_t *at = put(stream->out + stream->used, state, 8);
    memmove(at, word, (size_t)(end - word));
    stream->used = (size_t)(at - stream->out) + (size_t)(end - word);
    stream->count = 0;
}

static void open_block(Stream *stream) {
    stream->count = 0;
    stream->state = 0;
    if (stream->end - stream->next < 8) {
        stream->status = TRUNCATED;
        return;
    }
    for (unsigned i = 0; i < 8; i++) stream->state |= (uint64_t)*stream->next++ << (8 * i);
    if (stream->state >> 63) stream->status = DAMAGED;
}

/* Between two integers: a block that is full ends. Whether to go on. */
INLINE int go_on(Stream *stream, int decoding) {
    if (stream->count < BLOCK) return 1;
    if (!decoding) close_block(stream);
    else if (stream->state != LOW) stream->status = DAMAGED;
    else open_block(stream);
    return stream->status == OK;
}

/* ---------------------------------------------------------------- the model */

typedef struct {
    Bit zero[LEVELS][NEAR], sign[SIGNS][SIGNS], longer[LEVELS][7], tail[8][64];
} Contexts;

/* 16 * log2(x), rounded to whole numbers, of the 5 bits after x's first. */
static const uint8_t FRACTIONS[32] = {0,  1,  2,  2,  3,  4,  4,  5,  5,  6,  7,  7,  8,  8,  9,  9,
                                      10, 10, 11, 11, 11, 12, 12, 13, 13, 14, 14, 14, 15, 15, 15, 16};

INLINE int log_of(uint64_t x) {
#if defined(__GNUC__)
    int whole = 63 - __builtin_clzll(x);
#else
    int whole = 0;
    while (x >> whole > 1) whole++;
#endif
    return 16 * whole + FRACTIONS[(whole > 5 ? x >> (whole - 5) : x << (5 - whole)) & 31];
}

typedef struct {
    uint64_t sum, seen; /* of the magnitudes of all integers, and how many */
    uint64_t array_sum, array_seen, prior;
    uint64_t *columns;     /* [columns] sums of magnitudes of the rows so far */
    int8_t *column_signs;  /* [columns] */
    Contexts contexts;
} Means;

INLINE int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

INLINE unsigned bits_of(unsigned x) {
    unsigned bits = 0;
    while (x >> bits) bits++;
    return bits;
}

INLINE int code_magnitude(Stream *stream, int decoding, Contexts *contexts, int level, int magnitude) {
    unsigned length = 1, bits = decoding ? 0 : bits_of((unsigned)magnitude);
    while (length < 7 && ask(stream, decoding, &contexts->longer[level][length], FAST, bits > length)) length++;
    unsigned value = 1;
    for (unsigned left = length - 1; left-- > 0;) {
        unsigned bit = (unsigned)magnitude >> left & 1;
        value = value << 1 | ask(stream, decoding, &contexts->tail[length][value], FAST, bit);
    }
    return (int)value;
}

/* One integer, given what is expected of it. */
INLINE int code_value(Stream *stream, int decoding, Contexts *contexts, int alphabet, int level, int near,
                      int row_sign, int column_sign, int value) {
    if ((alphabet & HAS_ZEROS) && !ask(stream, decoding, &contexts->zero[level][near], SLOW, value != 0)) return 0;
    Bit *sign = &contexts->sign[row_sign + 3][column_sign + 3];
    unsigned negative = alphabet & HAS_SIGNS ? ask(stream, decoding, sign, FAST, value < 0) : 0;
    int magnitude = 1;
    if (alphabet & HAS_SIZES) magnitude = code_magnitude(stream, decoding, contexts, level, abs(value));
    return negative ? -magnitude : magnitude;
}

INLINE int code_array(Stream *stream, int decoding, Means *means, const Integers *array) {
    size_t columns = array->columns;
    const uint8_t *live = array->live;
    int8_t *values = array->values;
    means->array_sum = means->array_seen = 0;
    means->prior = (means->sum * TOTAL + TOTAL / 2) / (means->seen + 200);
    memset(means->columns, 0, array->rows > 1 ? columns * sizeof *means->columns : 0);
    memset(means->column_signs, 0, array->rows > 1 ? columns : 0);
    for (size_t row = 0; row < array->rows; row++) {
        uint64_t mean = (means->array_sum * TOTAL + means->prior * 50) / (means->array_seen + 50), row_sum = 0;
        mean += mean == 0;
        int none = log_of(2 * mean), of_row = none, fixed = 64 - log_of(row + 2) - log_of(mean), row_sign = 0;
        for (size_t i = 0; i < columns; i++, values++) {
            if (live != NULL && !*live++) continue;
            if (!go_on(stream, decoding)) return 0;
            uint64_t column_sum = row ? means->columns[i] : 0;
            int of_column = column_sum ? log_of(column_sum * TOTAL + 2 * mean) : none;
            int level = clamp((fixed + of_row + of_column - log_of(i + 2)) >> 3, 0, LEVELS - 1);
            int left = i ? abs(values[-1]) : 0, above = row ? abs(*(values - columns)) : 0;
            int near = clamp((int)bits_of((unsigned)(left + above)), 0, NEAR - 1);
            int column_sign = row ? means->column_signs[i] : 0;
            int value = code_value(stream, decoding, &means->contexts, array->alphabet, level, near, row_sign,
                                   column_sign, *values);
            if (decoding) *values = (int8_t)value;
            if (value == 0) continue;
            row_sum += (uint64_t)abs(value);
            of_row = log_of(row_sum * TOTAL + 2 * mean);
            row_sign = clamp(row_sign + (value < 0 ? -1 : 1), -3, 3);
            if (array->rows == 1) continue;
            means->columns[i] = column_sum + (uint64_t)abs(value);
            means->column_signs[i] = (int8_t)clamp(column_sign + (value < 0 ? -1 : 1), -3, 3);
        }
        means->array_sum += row_sum;
        means->array_seen += columns;
        means->sum += row_sum;
        means->seen += columns;
    }
    return 1;
}

static void begin_bits(Bit *bits, size_t count, uint32_t one) {
    for (size_t i = 0; i < count; i++) bits[i] = (Bit){one, 2};
}

static void begin(Contexts *c) {
    for (int level = 0; level < LEVELS; level++) {
        uint32_t one = (1u << 31) >> (level < 38 ? (38 - level) / 2 : 0); /* level 40 expects a magnitude of 1 */
        begin_bits(c->zero[level], NEAR, one);
    }
    begin_bits(c->sign[0], SIGNS * SIGNS, 1u << 31);
    begin_bits(c->longer[0], LEVELS * 7, 1u << 31);
    begin_bits(c->tail[0], 8 * 64, 1u << 31);
}

/* Room for what the model learns of columns; NULL if there is no memory. */
static Means *means_for(const Integers *arrays, size_t count) {
    size_t most = 1;
    for (size_t i = 0; i < count; i++)
        if (arrays[i].rows > 1 && arrays[i].columns > most) most = arrays[i].columns;
    Means *means = calloc(1, sizeof *means);
    if (means == NULL) return NULL;
    means->columns = malloc(most * sizeof *means->columns);
    means->column_signs = malloc(most);
    begin(&means->contexts);
    return means;
}

static void free_means(Means *means) {
    if (means == NULL) return;
    free(means->columns);
    free(means->column_signs);
    free(means);
}

static void begin_rates(Stream *stream) {
    for (uint32_t i = 0; i <= SLOW; i++) stream->rates[i] = 2 * TOTAL / (2 * i + 3); /* 1 / (seen + 1.5) */
}

uint8_t *encode_integers(const Integers *arrays, size_t count, size_t *size) {
    Stream stream = {.answers = malloc((BLOCK + MOST_ANSWERS) * sizeof *stream.answers), .status = OK};
    Means *means = means_for(arrays, count);
    int ok = stream.answers != NULL && means != NULL && means->columns != NULL && means->column_signs != NULL;
    begin_rates(&stream);
    for (size_t i = 0; ok && i < count; i++) ok = code_array(&stream, 0, means, arrays + i);
    if (ok) close_block(&stream);
    free_means(means);
    free(stream.answers);
    if (!ok || stream.status != OK) {
        free(stream.out);
        return NULL;
    }
    *size = stream.used;
    return stream.out;
}

int decode_integers(const Integers *arrays, size_t count, const uint8_t *data, size_t size) {
    Stream stream = {.next = data, .end = data + size, .status = OK};
    Means *means = means_for(arrays, count);
    int ok = means != NULL && means->columns != NULL && means->column_signs != NULL;
    if (!ok) stream.status = NO_MEMORY;
    begin_rates(&stream);
    if (ok) open_block(&stream);
    for (size_t i = 0; stream.status == OK && i < count; i++) code_array(&stream, 1, means, arrays + i);
    free_means(means);
    if (stream.status != OK) return stream.status;
    if (stream.next != stream.end) return TRAILING;
    return stream.state == LOW ? OK : DAMAGED;
}
