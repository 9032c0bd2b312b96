// The limit "region decode": the native core's decoder on boxes, without resize and without Python, by some threads.
#include <atomic>
#include <thread>

#include "../src/sagitta/_native/jpeg.h"

// Returns how many of the files were decoded. Boxes are left, top, right, bottom in the stored image.
extern "C" int64_t decode_regions(int64_t count, const uint8_t* const* files, const uint64_t* sizes,
                                  const int32_t* boxes, int threads) {
    std::atomic<int64_t> next{0}, done{0};
    const auto work = [&] {
        sagitta::Decoder decoder;
        for (int64_t i; (i = next.fetch_add(1)) < count;) {
            const int32_t* box = boxes + 4 * i;
            sagitta::Pixels pixels;
            if (decoder.open({files[i], sizes[i]})) {
                done += decoder.read({box[0], box[1], box[2], box[3]}, 1, 0, pixels);
            }
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
    return done;
}
