// A batch of images out of a data set that lies on the device as bytes: crop, mirror, normalise.
//
//   y[k, h, w, c] = byte * (2 / 255) - 1, of pixel (h, w) of the k-th chosen image, counted from its right edge
//   where it is mirrored; one grey channel is repeated for all of y's
//
// Must equal Backend.crop_images, bit for bit: product and sum are rounded one by one, as NumPy's. Of each square
// `squares` (N, 3) has where its first byte lies, the bytes of a row of the image that it is cut out of (so that
// images may differ in size), and whether it is mirrored.
// Launch: one thread an element of y, in blocks of 256.
// Bytes: reads one byte and writes four an element. Operations: index arithmetic, one product and one sum.

__global__ void crop_images(const unsigned char* images, const long long* squares, float* y, int side,
                            int channels, int given, long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    long long rest = index;
    int c = (int)(rest % channels);
    rest /= channels;
    int w = (int)(rest % side);
    rest /= side;
    int h = (int)(rest % side);
    const long long* square = squares + rest / side * 3;
    int from = square[2] ? side - 1 - w : w;
    long long place = square[0] + h * square[1] + (long long)from * given + (given == 1 ? 0 : c);
    y[index] = __fadd_rn(__fmul_rn((float)images[place], (float)(2.0 / 255.0)), -1.0f);
}
