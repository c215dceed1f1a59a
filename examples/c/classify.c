/* Links a compiled network and runs it: one garment of 28 x 28 grey values in, ten scores out.
 *
 *   dnnc tests/data/fm-mobilenetv2/model.onnx --name garment -o garment.o
 *   cc -O2 -I. examples/c/classify.c garment.o -o classify && ./classify
 *   cc -O2 -I. -DTHREADS=2 examples/c/classify.c garment.o -lpthread -o classify && ./classify
 *
 * The network needs no heap, no start-up and no runtime: the arena below is all the memory it touches beside its inputs and outputs. */
#include "garment.h"
#include <stdio.h>

static const char *const names[] = {"T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"};

static _Alignas(GARMENT_ARENA_ALIGN) unsigned char arena[GARMENT_ARENA_BYTES];

#ifdef THREADS
#include <pthread.h>

/* The caller brings the threads: here a new one for each share of the work, in a real program those of its own pool. */
struct share {
    void (*body)(void *ctx, size_t i);
    void *ctx;
    size_t first, count;
};

static void *work(void *p) {
    struct share *s = p;
    for (size_t i = s->first; i < s->count; i += THREADS) s->body(s->ctx, i);
    return NULL;
}

static void parallel_for(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx) {
    (void)pool;
    pthread_t threads[THREADS];
    struct share shares[THREADS];
    for (size_t t = 0; t < THREADS; t++) {
        shares[t] = (struct share){body, ctx, t, n};
        pthread_create(&threads[t], NULL, work, &shares[t]);
    }
    for (size_t t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
}
#endif

int main(void) {
    static float image[28 * 28], scores[10];
    for (int y = 4; y < 24; y++) /* a pair of trousers, roughly */
        for (int x = 9; x < 19; x++) image[28 * y + x] = (y > 10 && x > 12 && x < 15) ? 0.0f : 0.8f;
    const void *inputs[] = {image};
    void *outputs[] = {scores};
#ifdef THREADS
    int32_t status = garment_run_parallel(inputs, outputs, arena, NULL, parallel_for);
#else
    int32_t status = garment_run(inputs, outputs, arena);
#endif
    if (status != 0) {
        fprintf(stderr, "the network stopped with status %d\n", (int)status);
        return 1;
    }
    int best = 0;
    for (int i = 1; i < 10; i++)
        if (scores[i] > scores[best]) best = i;
    printf("%s (score %.3f), using %d bytes of RAM\n", names[best], scores[best], (int)GARMENT_ARENA_BYTES);
    return 0;
}
