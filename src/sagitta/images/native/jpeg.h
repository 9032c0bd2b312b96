// libjpeg-turbo with errors and warnings as longjmp, and a decoder that reads a part of an image.
#pragma once
#include <csetjmp>
#include <cstdio>

#include <jerror.h>
#include <jpeglib.h>

#include "core.h"

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "libjpeg-turbo 2.1 or newer is needed: it reads parts of an image and upsamples 4:4:0 as Pillow's does"
#endif

namespace sagitta {

// Pillow goes on after a warning, with pixels that depend on all bytes before it. So the core gives up at the first
// one and leaves such a file to Pillow.
struct JpegErrors {
    jpeg_error_mgr manager;  // first, since libjpeg hands back a pointer to it
    std::jmp_buf jump;
    JpegErrors();
};

class Decoder {
  public:
    Decoder();
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    // Reads the header of a complete grey, YCbCr or RGB JPEG; false for anything else.
    bool open(Bytes file);
    int width() const { return width_; }
    int height() const { return height_; }

    // Decodes `box` of the image reduced by `scale` (1, 2, 4 or 8), bit for bit as a decode of the whole would. The
    // pixels live until the next call; `slack` bytes may be read behind them.
    bool read(Box box, int scale, size_t slack, Pixels& pixels);

  private:
    bool read_header(Bytes file);
    bool read_region(Box box, int scale, size_t slack, Pixels& pixels);
    Box narrow(Box box, int scale, Bytes& file);
    template <class Work> bool guarded(Work work);

    JpegErrors errors_;
    jpeg_decompress_struct info_;
    bool created_ = false;
    Bytes file_{};
    int width_ = 0, height_ = 0;
    Layout layout_{};
    std::vector<uint8_t> spliced_, buffer_;
};

bool is_fully_refined(const jpeg_decompress_struct& info);

}  // namespace sagitta
