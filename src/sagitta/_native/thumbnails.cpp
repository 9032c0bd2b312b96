// Thumbnails: a window cut out of each decoded image, mirrored or not, as bytes or as normalised floats.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace {

struct Cut {  // thumbnails.CUT
    int64_t row;
    int32_t top, left;
    uint8_t flip;
};
static_assert(sizeof(Cut) == 24, "thumbnails.CUT has this layout");

struct Shape {
    int channels, height, width;
};

// `put(channel, byte)` is what is written for a byte.
template <class Out, class Put>
void cut_out(int64_t count, const uint8_t* images, Shape from, const Cut* cuts, Shape to, Out* out, Put put) {
    const size_t row = size_t(from.width), plane = row * size_t(from.height);
    for (const Cut* cut = cuts; cut != cuts + count; cut++) {
        const uint8_t* source = images + size_t(cut->row) * size_t(from.channels) * plane + size_t(cut->top) * row +
                                size_t(cut->left);
        for (int c = 0; c < to.channels; c++, source += plane) {
            const uint8_t* line = source;
            for (int y = 0; y < to.height; y++, line += row, out += to.width) {
                const auto write = [&](uint8_t byte) { return put(c, byte); };
                if (cut->flip)
                    std::transform(std::make_reverse_iterator(line + to.width), std::make_reverse_iterator(line), out,
                                   write);
                else
                    std::transform(line, line + to.width, out, write);
            }
        }
    }
}

}  // namespace

extern "C" {

// Writes (count, channels, to_height, to_width): bytes, or with a table of 256 floats a channel what it holds for them.
void sagitta_cut_out(int64_t count, const uint8_t* images, int channels, int height, int width, const void* cuts,
                     int to_height, int to_width, const float* table, void* out) {
    const Shape from{channels, height, width}, to{channels, to_height, to_width};
    const Cut* first = static_cast<const Cut*>(cuts);
    if (table)
        cut_out(count, images, from, first, to, static_cast<float*>(out),
                [table](int c, uint8_t byte) { return table[c * 256 + byte]; });
    else
        cut_out(count, images, from, first, to, static_cast<uint8_t*>(out), [](int, uint8_t byte) { return byte; });
}
}
