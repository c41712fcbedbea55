/* Time over size as a straight line: line.Line. */
#include "_ways.h"

#include <math.h>

void slope_begin(Slope *line, double guess_ms) { *line = (Slope){.guess_ms = guess_ms}; }

double slope_at(const Slope *line, double size) { return line->base_ms + line->byte_ms * size; }

static double most(double one, double other) { return other > one ? other : one; }
static double least(double one, double other) { return other < one ? other : one; }

static void weigh_in(Slope *line, double size, double time_ms) {
    double weight = 1 / (time_ms * time_ms), sized = weight * size;
    line->frames = FORGET * line->frames + weight;
    line->sizes = FORGET * line->sizes + sized;
    line->times = FORGET * line->times + weight * time_ms;
    line->squares = FORGET * line->squares + sized * size;
    line->products = FORGET * line->products + sized * time_ms;
}

void slope_add(Slope *line, double size, double time_ms, double noise) {
    weigh_in(line, size, time_ms);
    double n = line->frames, s = line->sizes, t = line->times, ss = line->squares, st = line->products;
    double mean_ms = t / n, off = most(noise, LEAST_NOISE) / GUESS_OFF;
    double anchor = off * off / (mean_ms * mean_ms);
    double guess_ms = isnan(line->guess_ms) ? GUESS * mean_ms : line->guess_ms;
    double spread = n * ss - s * s, whole = (n + anchor) * ss - s * s;
    double base_ms = ((t + anchor * guess_ms) * ss - s * st) / whole;
    int tells = spread > TOLD * whole;
    line->base_ms = base_ms = least(most(base_ms, 0.0), tells || line->told ? mean_ms : MOST_BASE * mean_ms);
    line->byte_ms = (mean_ms - base_ms) * n / s;
    if (tells) {
        line->told = 1;
        line->guess_ms = base_ms;
    }
}
