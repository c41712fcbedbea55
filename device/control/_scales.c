/* The ways to answer a picture and the best of them: the arithmetic of ways._Scales. */
#include "_ways.h"

#include <math.h>

/* ---------------------------------------------------------------- every way */

static void add_way(Table *table, Way way) { table->ways[table->count++] = way; }

/* The chance that a frame of an option is in time, from how many times the middling time there is for it. */
static double chance_of(const Room *room, const Option *option, double left_ms) {
    double own_ms = room->base_ms + room->byte_ms * option->bytes, times = left_ms / own_ms;
    if (room->ahead_ms != 0) {
        double together = (room->left_ms + room->oldest_ms) / (own_ms + room->ahead_ms);
        if (together < times) times = together;
    }
    return margin_chance(room->margin, times, room->beyond);
}

/* As ways.Fear.lost. */
static double lost(const Fear *fear, double left_ms, double bytes) {
    double over_ms = fear->base_ms + fear->byte_ms * bytes - left_ms;
    if (!(over_ms > 0)) return 0.0;
    double pictures = 1.0 + over_ms / fear->interval_ms;
    return pictures < MOST_LOST ? pictures : MOST_LOST;
}

/* As ways._sends. */
static double add_sends(Table *table, const Width *width, const Room *room, const Wanted *wanted,
                        const Option *smallest, double best, double compute_ms) {
    int alone = isnan(width->local);
    double instead = alone ? 0.0 : width->local, least = alone ? wanted->level : HOPELESS;
    double left_ms = room->left_ms - compute_ms;
    if (left_ms <= 0) return best;
    for (size_t i = width->count; i-- > 0;) {
        const Option *option = width->options + i;
        double bytes = option->bytes, gain = wanted->doubt * (option->accuracy - instead);
        if (gain <= 0 || instead + gain < best - wanted->slack) break;
        if (bytes > wanted->affordable || (bytes > room->steady_bytes && option != smallest)) continue;
        if (bytes > wanted->each) {
            gain *= wanted->each / bytes;
            if (instead + gain < best - wanted->slack) continue;
        }
        double chance = chance_of(room, option, left_ms);
        double kept = (alone ? 1.0 : chance) - room->fear.share * lost(&room->fear, left_ms, bytes);
        double worth = instead + (kept > 0 ? kept : 0.0) * gain;
        int sure = chance >= least;
        if (sure && worth > best) best = worth;
        add_way(table, (Way){SEND, option, worth, chance, sure, compute_ms, bytes});
    }
    return best;
}

/* As ways.Ways.all, into table->ways; what the best of the sure is worth. */
double weigh(Table *table, const Way *whole, const Work *work, const Room *room, const Wanted *wanted) {
    const Width *narrowest = table->width + table->widths - 1;
    double best = 0.0;
    table->count = 0;
    if (whole != NULL) {
        add_way(table, *whole);
        best = whole->worth;
    }
    for (const Width *width = table->width; width <= narrowest; width++) {
        double local = isnan(width->local) ? 0.0 : width->local, most = width->options[width->count - 1].accuracy;
        if ((local > most ? local : most) < best - wanted->slack) continue;
        double device_ms = (work->prepare_ms + width->head_ms) * work->factor;
        if (device_ms > (width == narrowest ? work->left_ms : work->wider_ms)) continue;
        if (width->local >= best - wanted->slack) {
            add_way(table, (Way){LOCAL, width->options, width->local, 1.0, 1, device_ms, 0.0});
            if (width->local > best) best = width->local;
        }
        if (room->margin != NULL)
            best = add_sends(table, width, room, wanted, narrowest->options, best, device_ms);
    }
    return best;
}

/* ---------------------------------------------------------------- which of them */

const Way *worthiest(const Table *table, const Key *kept) {
    const Way *best = NULL, *same = NULL;
    for (const Way *way = table->ways; way < table->ways + table->count; way++) {
        if (!way->sure) continue;
        int smaller = best != NULL && way->worth == best->worth && way->bytes <= best->bytes;
        if (best == NULL || way->worth > best->worth || smaller) best = way;
        int is_kept = way->option->mode == kept->mode && way->option->groups == kept->groups;
        if (is_kept && way->action == kept->action && way->chance >= STEADY) same = way;
    }
    return same != NULL && same->worth >= best->worth - NOISE ? same : best;
}

const Way *cheapest(const Table *table, double enough, const Cost *cost) {
    const Way *best = NULL;
    double least = INFINITY;
    for (const Way *way = table->ways; way < table->ways + table->count; way++) {
        if (!way->sure || way->worth < enough) continue;
        double costs = cost->per_ms * way->compute_ms;
        if (way->bytes != 0) costs += cost->per_frame + cost->per_byte * way->bytes;
        if (best == NULL || costs < least || (costs == least && way->worth > best->worth)) {
            best = way;
            least = costs;
        }
    }
    return best;
}

const Way *likeliest(const Table *table, double within) {
    const Way *best = NULL;
    double chance = 0.0, most = 0.0;
    for (size_t i = 0; i < table->count; i++)
        if (table->ways[i].chance > chance) chance = table->ways[i].chance;
    if (chance < HOPELESS) return NULL;
    for (const Way *way = table->ways; way < table->ways + table->count; way++) {
        double right = way->chance * way->worth;
        if (way->chance < chance - within) continue;
        if (best == NULL || right > most || (right == most && way->bytes < best->bytes)) {
            best = way;
            most = right;
        }
    }
    return best;
}
