/* Frequencies of symbols to what pushing and pulling them needs at hand; see _rans.h. */
#include "_rans.h"

#include <stdlib.h>

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
static void fill_bucket(Pull *one, Pull *two, const Slots *slots, uint32_t count, uint32_t first, uint32_t bucket_end) {
    const Slots *a = slots + first, *b = first + 1 < count ? a + 1 : a;
    uint32_t a_end = (uint32_t)a->start + a->frequency, b_end = (uint32_t)b->start + b->frequency;
    int needs_two = a_end < bucket_end;
    if (a->symbol == ESCAPE_SYMBOL || (needs_two && (b->symbol == ESCAPE_SYMBOL || b_end < bucket_end))) {
        *one = (Pull){0, 0, 0, 0};
        *two = (Pull){0, 0, (int16_t)first, 0};
        return;
    }
    *one = pull_of(a);
    *two = pull_of(needs_two ? b : a);
    one->split = needs_two ? (uint16_t)a_end : 0; /* 0: always the second, which is the same symbol */
}

static int fill_pull(PullTable *table, const uint16_t *frequencies, uint32_t count, int32_t low) {
    uint64_t *order = slot_order(frequencies, count);
    table->slots = malloc(count * sizeof *table->slots);
    table->low = low;
    table->high = low + (int32_t)count - 2;
    if (order != NULL && table->slots != NULL) {
        for (uint32_t i = 0, start = 0; i < count; i++) {
            int32_t symbol = order[i] == count - 1 ? ESCAPE_SYMBOL : low + (int32_t)order[i];
            table->slots[i] = (Slots){frequencies[order[i]], (uint16_t)start, symbol};
            start += frequencies[order[i]];
        }
        for (uint32_t bucket = 0, first = 0; bucket < BUCKETS; bucket++) {
            uint32_t begin = bucket * (TOTAL / BUCKETS), end = begin + TOTAL / BUCKETS;
            while ((uint32_t)table->slots[first].start + table->slots[first].frequency <= begin) first++;
            fill_bucket(table->ones + bucket, table->twos + bucket, table->slots, count, first, end);
        }
    }
    free(order);
    return order != NULL && table->slots != NULL;
}

static void free_push(PushTable *tables, size_t channels) {
    if (tables == NULL) return;
    for (size_t c = 0; c < channels; c++) free(tables[c].symbols);
    free(tables);
}

static void free_pull(PullTable *tables, size_t channels) {
    if (tables == NULL) return;
    for (size_t c = 0; c < channels; c++) free(tables[c].slots);
    free(tables);
}

static const uint16_t *table_at(const Model *model, size_t index, uint32_t *count) {
    *count = model->starts[index + 1] - model->starts[index];
    return model->frequencies + model->starts[index];
}

const PushTable *push_tables(Model *model, size_t mode) {
    if (model->push[mode] != NULL) return model->push[mode];
    size_t channels = model->mode_channels[mode];
    PushTable *tables = calloc(channels, sizeof *tables);
    int ok = tables != NULL;
    for (size_t c = 0; ok && c < channels; c++) {
        size_t index = mode * model->channels + c;
        uint32_t count;
        const uint16_t *frequencies = table_at(model, index, &count);
        ok = fill_push(tables + c, frequencies, count, model->low[index]);
    }
    if (!ok) {
        free_push(tables, channels);
        return NULL;
    }
    return model->push[mode] = tables;
}

const PullTable *pull_tables(Model *model, size_t mode) {
    if (model->pull[mode] != NULL) return model->pull[mode];
    size_t channels = model->mode_channels[mode];
    PullTable *tables = calloc(channels, sizeof *tables);
    int ok = tables != NULL;
    for (size_t c = 0; ok && c < channels; c++) {
        size_t index = mode * model->channels + c;
        uint32_t count;
        const uint16_t *frequencies = table_at(model, index, &count);
        ok = fill_pull(tables + c, frequencies, count, model->low[index]);
    }
    if (!ok) {
        free_pull(tables, channels);
        return NULL;
    }
    return model->pull[mode] = tables;
}

void free_tables(Model *model) {
    for (size_t m = 0; m < model->modes; m++) {
        free_push(model->push[m], model->mode_channels[m]);
        free_pull(model->pull[m], model->mode_channels[m]);
    }
}
