/* Links a network that was compiled for two batch sizes, and classifies six garments: four at once, the others one by one.
 *
 *   dnnc tests/data/fm-mobilenetv2/model.onnx --dim batch=1,4 --name garment -o garment.o
 *   cc -O2 -I. examples/c/batches.c garment.o -o batches && ./batches
 *
 * The sizes go in a structure with a field for each dimension; any others than those of the header are refused with a status of their own. */
#include "garment.h"
#include <stdio.h>

enum { GARMENTS = 6, PIXELS = 28 * 28, SCORES = 10 };

static const char *const names[SCORES] = {"T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"};

/* Enough for every variant. */
static _Alignas(GARMENT_ARENA_ALIGN) unsigned char arena[GARMENT_ARENA_BYTES];
static float images[GARMENTS][PIXELS], scores[GARMENTS][SCORES];

int main(void) {
    for (int g = 0; g < GARMENTS; g++)
        for (int y = 4; y < 24; y++)
            for (int x = 9; x < 19; x++) /* trousers, and every third time something without legs */
                images[g][28 * y + x] = g % 3 != 2 && y > 10 && x > 12 && x < 15 ? 0.0f : 0.8f;
    for (size_t done = 0; done < GARMENTS;) {
        garment_dims dims = {.batch = GARMENTS - done};
        while (garment_variant(&dims) < 0) dims.batch--; /* the largest that there is */
        const void *inputs[] = {images[done]};
        void *outputs[] = {scores[done]};
        int32_t status = garment_run(&dims, inputs, outputs, arena);
        if (status != 0) {
            fprintf(stderr, "the network stopped with status %d\n", (int)status);
            return 1;
        }
        printf("%zu at once, using %zu bytes of RAM\n", dims.batch, garment_arena_bytes(&dims));
        done += dims.batch;
    }
    for (int g = 0; g < GARMENTS; g++) {
        int best = 0;
        for (int i = 1; i < SCORES; i++)
            if (scores[g][i] > scores[g][best]) best = i;
        printf("%s (score %.3f)\n", names[best], scores[g][best]);
    }
    /* A size that was not compiled is refused before anything is touched. */
    garment_dims dims = {.batch = 3};
    return garment_run(&dims, NULL, NULL, NULL) == GARMENT_BAD_DIMS ? 0 : 1;
}
