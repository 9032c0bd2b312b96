// The C interface: a batch of jobs shared by threads, and restart markers.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <thread>

#include "jpeg.h"

using namespace sagitta;

namespace {

struct Job {  // decode.JOB
    int32_t box[4];      // left, top, right, bottom in the upright image
    int32_t resized[2];  // height, width
    int32_t window[2];   // top, left
    uint8_t flip, orientation;
};
static_assert(sizeof(Job) == 36, "decode.JOB has this layout");

struct Batch {
    int64_t count;
    const uint8_t* const* files;
    const uint64_t* sizes;
    const Job* jobs;
    uint8_t* out;
    int height, width, channels;
    Filter filter;
    bool fast;
    uint8_t* done;
};

// How a stored image lies in the upright one.
struct Orientation {
    bool mirrored_x, mirrored_y, swapped;
    explicit Orientation(int exif)
        : mirrored_x(exif == 2 || exif == 3 || exif == 6 || exif == 7),
          mirrored_y(exif == 3 || exif == 4 || exif == 7 || exif == 8), swapped(exif >= 5) {}
    bool upright() const { return !mirrored_x && !mirrored_y && !swapped; }
};

Box to_stored(Box box, Orientation way, int width, int height) {
    if (way.mirrored_x) box = {width - box.right, box.top, width - box.left, box.bottom};
    if (way.mirrored_y) box = {box.left, height - box.bottom, box.right, height - box.top};
    return way.swapped ? Box{box.top, box.left, box.bottom, box.right} : box;
}

Pixels to_upright(const Pixels& stored, Orientation way, size_t slack, std::vector<uint8_t>& buffer) {
    const int width = way.swapped ? stored.height : stored.width, channels = stored.channels;
    const int height = way.swapped ? stored.width : stored.height;
    const size_t stride = size_t(width) * size_t(channels);
    if (buffer.size() < stride * size_t(height) + slack) buffer.resize(stride * size_t(height) + slack);
    uint8_t* to = buffer.data();
    for (int y = 0; y < height; y++) {
        const int from_y = way.mirrored_y ? height - 1 - y : y;
        for (int x = 0; x < width; x++) {
            const int from_x = way.mirrored_x ? width - 1 - x : x;
            const int row = way.swapped ? from_x : from_y, column = way.swapped ? from_y : from_x;
            const uint8_t* from = stored.data + size_t(row) * stored.stride + size_t(column) * size_t(channels);
            for (int c = 0; c < channels; c++) *to++ = from[c];
        }
    }
    return {buffer.data(), stride, width, height, channels};
}

// One side of a box in an image reduced by `scale`: [from, to) exactly, [first, end) in whole pixels.
struct Side {
    double from, to;
    int first, end;
    Side(int low, int high, int size, bool mirrored, int scale) {
        const int reduced = (size + scale - 1) / scale;
        const double shift = mirrored ? reduced - double(size) / scale : 0.0;
        from = double(low) / scale + shift;
        to = double(high) / scale + shift;
        first = int(from);
        end = to > int(to) ? int(to) + 1 : int(to);
    }
    AxisSpec axis(int resized, int window, int count, bool reversed, int group) const {
        return {end - first, from - first, to - first, resized, window, count, reversed, group};
    }
};

class Worker {
  public:
    explicit Worker(const Batch& batch) : batch_(batch) {}

    bool run(Bytes file, const Job& job, uint8_t* out) {
        if (job.orientation < 1 || job.orientation > 8 || !decoder_.open(file)) return false;
        const Orientation way(job.orientation);
        const int width = way.swapped ? decoder_.height() : decoder_.width();
        const int height = way.swapped ? decoder_.width() : decoder_.height();
        if (!fits(job, width, height)) return false;
        const int scale = batch_.fast ? reduction(job) : 1;
        const Side x(job.box[0], job.box[2], width, way.mirrored_x, scale);
        const Side y(job.box[1], job.box[3], height, way.mirrored_y, scale);
        const Axis across =
            make_axis(x.axis(job.resized[1], job.window[1], batch_.width, job.flip != 0, 4), batch_.filter);
        const Axis down = make_axis(y.axis(job.resized[0], job.window[0], batch_.height, false, 2), batch_.filter);
        const Box box{x.first + across.first, y.first + down.first, x.first + across.end, y.first + down.end};
        const Box stored = to_stored(box, way, (width + scale - 1) / scale, (height + scale - 1) / scale);
        Pixels pixels;
        if (!decoder_.read(stored, scale, slack(across), pixels)) return false;
        if (!way.upright()) pixels = to_upright(pixels, way, slack(across), upright_);
        resizer_.resize(pixels, across, down, down_first(x, y, job), batch_.channels, out);
        return true;
    }

  private:
    bool fits(const Job& job, int width, int height) const {
        constexpr int limit = 1 << 30;  // of which only the window is made
        return 0 <= job.box[0] && job.box[0] < job.box[2] && job.box[2] <= width &&  //
               0 <= job.box[1] && job.box[1] < job.box[3] && job.box[3] <= height &&
               job.resized[0] <= limit && job.resized[1] <= limit &&  //
               0 <= job.window[0] && job.window[0] <= job.resized[0] - batch_.height &&
               0 <= job.window[1] && job.window[1] <= job.resized[1] - batch_.width;
    }

    // Pillow goes down first where that drops many more rows than the other way drops columns.
    bool down_first(const Side& x, const Side& y, const Job& job) const {
        const int rows = y.end - y.first - job.resized[0], columns = x.end - x.first - job.resized[1];
        return rows > 0 && rows > 2 * columns;
    }

    // The largest reduction that still leaves at least as many pixels as are wanted.
    int reduction(const Job& job) const {
        const int width = job.box[2] - job.box[0], height = job.box[3] - job.box[1];
        int scale = 8;
        while (scale > 1 && (width < scale * job.resized[1] || height < scale * job.resized[0])) scale /= 2;
        return scale;
    }

    const Batch& batch_;
    Decoder decoder_;
    Resizer resizer_;
    std::vector<uint8_t> upright_;
};

void work(const Batch& batch, std::atomic<int64_t>& next) noexcept {
    Worker worker(batch);
    const size_t size = size_t(batch.height) * size_t(batch.width) * size_t(batch.channels);
    for (int64_t i; (i = next.fetch_add(1)) < batch.count;) {
        try {
            batch.done[i] = worker.run({batch.files[i], batch.sizes[i]}, batch.jobs[i], batch.out + size_t(i) * size);
        } catch (const std::exception&) {  // out of memory: Pillow may say it better
            batch.done[i] = 0;
        }
    }
}

}  // namespace

extern "C" {

// Writes (height, width, channels) bytes for each file and 1 into `done`, or 0 where the file is left to Pillow.
void sagitta_decode_batch(int64_t count, const uint8_t* const* files, const uint64_t* sizes, const void* jobs,
                          uint8_t* out, int height, int width, int channels, int filter, int fast, int threads,
                          uint8_t* done) {
    const Batch batch{count,  files, sizes,    static_cast<const Job*>(jobs), out,
                      height, width, channels, Filter(filter),                fast != 0, done};
    std::atomic<int64_t> next{0};
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads && i < count; i++) others.emplace_back(work, std::cref(batch), std::ref(next));
    } catch (const std::exception&) {  // no more threads to be had: those there are do the work
    }
    work(batch, next);
    for (std::thread& thread : others) thread.join();
}

// Rewrites `file` into a new block at `out`, to be given to sagitta_free; returns its size, or 0 where the file must
// stay as it is.
uint64_t sagitta_add_restart_markers(const uint8_t* file, uint64_t size, uint8_t** out) {
    try {
        std::vector<uint8_t> bytes;
        if (!add_restart_markers({file, size}, bytes)) return 0;
        *out = static_cast<uint8_t*>(std::malloc(bytes.size()));
        if (!*out) return 0;
        std::memcpy(*out, bytes.data(), bytes.size());
        return bytes.size();
    } catch (const std::exception&) {
        return 0;
    }
}

// Which functions there are and what they take. Raised with INTERFACE in __init__.py whenever that changes, so that a
// core that was built before is not called in another way.
int sagitta_interface() { return 1; }

void sagitta_free(uint8_t* data) { std::free(data); }

const char* sagitta_libjpeg() {
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)
    return QUOTED(LIBJPEG_TURBO_VERSION);
}
}
