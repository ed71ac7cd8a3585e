/* What Triton and PyTorch ask of CUDA's driver: kernels that were compiled elsewhere are loaded, and their launches counted. */
#include <string.h>
int cudaDeviceGetAttribute(int *value, int attribute, int device);
void fake_kernel(void *stream, const char *name);
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { return *flags = 0, *active = 1, 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)1, 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)1, 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuCtxGetLimit(unsigned long *value, int limit) { return *value = 0, 0; }
int cuCtxSetLimit(int limit, unsigned long value) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return cudaDeviceGetAttribute(value, attribute, device); }
int cuGetErrorString(int error, const char **text) { return *text = "driver error", 0; }
int cuModuleLoadData(void **module, const void *image) { return *module = (void *)1, 0; }
int cuModuleUnload(void *module) { return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = strdup(name), 0; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = attribute ? 0 : 1024, 0; } /* threads */
int cuFuncSetAttribute(void *function, int attribute, int value) { return 0; }
int cuFuncSetCacheConfig(void *function, int config) { return 0; }
int cuPointerGetAttribute(void *data, int attribute, unsigned long long pointer) { return memcpy(data, &pointer, sizeof pointer), 0; }
int cuOccupancyMaxActiveClusters(int *count, void *function, const void *config) { return *count = 1, 0; }
int cuTensorMapEncodeTiled() { return 0; }
int cuLaunchKernelEx(void **config, void *function, void **arguments, void **extra) {
  return fake_kernel(config[4], function), 0; /* its stream, behind seven sizes of 4 bytes */
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned i, unsigned j, unsigned k, unsigned shared, void *stream,
                   void **arguments, void **extra) {
  return fake_kernel(stream, function), 0;
}
