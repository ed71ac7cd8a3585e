// A CUDA device that is not there. Put before CUDA's own libraries (LD_PRELOAD) it stands in for the runtime and cuBLAS
// under the CUDA build of torch: memory is the host's, kernels and products are counted and not run, and the rules of
// stream capture are judged. Autograd, allocator, streams and graphs above it are torch's own.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

using String = std::string;
using Lock = std::lock_guard<std::recursive_mutex>;
typedef void (*Listener)(const char* kind, const char* detail);

struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  std::set<cudaStream_t> streams;
  long nodes = 0;
  String broken_by;  // empty: valid
};
struct Graph { long nodes; };

static std::recursive_mutex mutex;
static std::map<String, long> counts;
static Listener listener = nullptr;
static std::map<cudaStream_t, Capture*> capturing;
static std::map<cudaEvent_t, Capture*> captured_events;
static std::set<Capture*> active;
static std::map<char*, size_t> device_memory, pinned_memory;
static std::unordered_map<const void*, String> kernel_names;
static std::atomic<size_t> handle{0x10000};
static long live_bytes = 0, limit_bytes = 140l << 30;
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
static thread_local cudaError_t last_error = cudaSuccess;
static thread_local int current_device = 0;

static cudaError_t fail(cudaError_t error) { return last_error = error; }

static Capture* capture_on(cudaStream_t stream) {
  auto found = capturing.find(stream);
  return found == capturing.end() ? nullptr : found->second;
}

static void note(const char* kind, const String& detail) {
  { Lock lock(mutex); counts[kind]++; }
  if (listener) listener(kind, detail.c_str());
}

static void broken(Capture* capture, const char* by) {
  capture->broken_by = by;
  note("illegal", by);
}

// A call that may not be made during a capture: by its thread, or by any where both ask for the strict mode.
static cudaError_t unsafe(const char* call) {
  Lock lock(mutex);
  const bool strict = thread_mode == cudaStreamCaptureModeGlobal;
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (Capture* capture : active) {
    const bool own = pthread_equal(capture->thread, pthread_self());
    if (own ? capture->mode != cudaStreamCaptureModeRelaxed : strict && capture->mode == cudaStreamCaptureModeGlobal) {
      broken(capture, call);
      return fail(cudaErrorStreamCaptureUnsupported);
    }
  }
  return cudaSuccess;
}

static void work(cudaStream_t stream, const char* kind, const String& detail) {
  bool outside = false;
  {
    Lock lock(mutex);
    if (Capture* capture = capture_on(stream)) { capture->nodes++; return; }
    for (Capture* capture : active) outside |= pthread_equal(capture->thread, pthread_self()) != 0;
  }
  note("launch", detail);
  if (strcmp(kind, "launch")) note(kind, detail);
  if (outside) note("outside", detail);  // a capturing thread works on a stream that is not captured
}

static bool inside(const std::map<char*, size_t>& memory, const void* pointer) {
  auto found = memory.upper_bound((char*)pointer);
  if (found == memory.begin()) return false;
  --found;
  return (char*)pointer < found->first + found->second;
}

static char* taken(size_t bytes) {
  void* found = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return found == MAP_FAILED ? nullptr : (char*)found;
}

static String kernel_name(const void* function) {
  Lock lock(mutex);
  String& name = kernel_names[function];
  if (name.rfind("_Z", 0) == 0) {
    int status;
    char* readable = abi::__cxa_demangle(name.c_str(), 0, 0, &status);
    if (!status) name = readable;
    free(readable);
  }
  return name;
}

extern "C" {
// --- what Python asks
long fake_count(const char* kind) { Lock lock(mutex); auto found = counts.find(kind); return found == counts.end() ? 0 : found->second; }
void fake_reset() { Lock lock(mutex); counts.clear(); }
void fake_listen(Listener to) { listener = to; }
void fake_limit(long bytes) { limit_bytes = bytes; }
long fake_live() { return live_bytes; }

// --- devices
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = current_device; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { current_device = device; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "no device at all");
  p->totalGlobalMem = 140ull << 30;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->major = 9;
  p->multiProcessorCount = 132;
  p->maxBlocksPerMultiProcessor = 32;
  p->l2CacheSize = 60 << 20;
  p->textureAlignment = 512;
  p->concurrentKernels = p->unifiedAddressing = 1;
  p->memoryBusWidth = 6144;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static const std::map<int, int> known = {
      {cudaDevAttrMultiProcessorCount, 132}, {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448}, {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
      {cudaDevAttrMaxThreadsPerBlock, 1024}, {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048}, {cudaDevAttrMaxGridDimX, 2147483647},
      {cudaDevAttrMaxGridDimY, 65535}, {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxBlocksPerMultiprocessor, 32}, {cudaDevAttrL2CacheSize, 60 << 20}};
  auto found = known.find(attribute);
  *value = found == known.end() ? 0 : found->second;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 1; return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) { snprintf(id, size, "0000:00:00.0"); return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {  // any thread's capture forbids it
  Lock lock(mutex);
  note("device wait", "cudaDeviceSynchronize");
  for (Capture* capture : active) broken(capture, "cudaDeviceSynchronize");
  return active.empty() ? cudaSuccess : fail(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaGetLastError() { cudaError_t error = last_error; last_error = cudaSuccess; return error; }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return "some error";
  }
}
const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) { std::swap(thread_mode, *mode); return cudaSuccess; }

// --- memory
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const size_t step = 2 << 20;
  if (cudaError_t error = unsafe("cudaMalloc")) return error;
  Lock lock(mutex);
  if (live_bytes + (long)bytes > limit_bytes) return fail(cudaErrorMemoryAllocation);
  char* raw = taken(bytes + step);
  if (!raw) return fail(cudaErrorMemoryAllocation);
  char* aligned = (char*)(((size_t)raw + step - 1) & ~(step - 1));
  device_memory[aligned] = bytes;
  live_bytes += bytes;
  *pointer = aligned;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  if (cudaError_t error = unsafe("cudaFree")) return error;
  Lock lock(mutex);
  auto found = device_memory.find((char*)pointer);
  if (found != device_memory.end()) {
    live_bytes -= found->second;
    madvise(pointer, found->second, MADV_DONTNEED);
    device_memory.erase(found);
  }
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  if (cudaError_t error = unsafe("cudaHostAlloc")) return error;
  Lock lock(mutex);
  *pointer = taken(bytes + 1);
  pinned_memory[(char*)*pointer] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) { Lock lock(mutex); pinned_memory.erase((char*)pointer); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { *total = limit_bytes; *free = *total - live_bytes; return cudaSuccess; }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* pointer) {
  Lock lock(mutex);
  memset(a, 0, sizeof *a);
  a->type = inside(device_memory, pointer) ? cudaMemoryTypeDevice
            : inside(pinned_memory, pointer) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  a->devicePointer = (void*)pointer;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  bool captured, within;
  { Lock lock(mutex); captured = capture_on(stream); within = inside(device_memory, to) && inside(device_memory, from); }
  work(stream, within ? "launch" : "transfer", "copy of " + std::to_string(bytes) + " bytes");
  if (!captured) memcpy(to, from, bytes);
  else if (!within) note("host memory in capture", std::to_string(bytes) + " bytes");
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (cudaError_t error = unsafe("cudaMemcpy")) return error;
  memcpy(to, from, bytes);
  note("wait", "cudaMemcpy");
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  bool captured;
  { Lock lock(mutex); captured = capture_on(stream); }
  work(stream, "launch", "memset");
  if (!captured) memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { memset(to, value, bytes); return cudaSuccess; }
cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) { *pointer = (void*)symbol; return cudaSuccess; }

// --- streams, captures and events
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) { *s = (cudaStream_t)(handle += 64); return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { *s = (cudaStream_t)(handle += 64); return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* s) { *s = (cudaStream_t)(handle += 64); return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Lock lock(mutex);
  Capture* capture = capture_on(stream);
  if (!capture) return cudaSuccess;
  broken(capture, "cudaStreamQuery");
  return fail(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Capture* capture;
  { Lock lock(mutex); capture = capture_on(stream); }
  if (!capture) { note("wait", "cudaStreamSynchronize"); return cudaSuccess; }
  broken(capture, "cudaStreamSynchronize");
  return fail(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Lock lock(mutex);
  Capture* capture = capture_on(stream);
  *status = !capture ? cudaStreamCaptureStatusNone
            : capture->broken_by.empty() ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t* count) {
  cudaStreamIsCapturing(stream, status);
  Lock lock(mutex);
  Capture* capture = capture_on(stream);
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  static unsigned long long next = 1;
  Lock lock(mutex);
  capturing[stream] = new Capture{next++, mode, pthread_self(), {stream}};
  active.insert(capturing[stream]);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(mutex);
  Capture* capture = capture_on(stream);
  if (!capture) return fail(cudaErrorIllegalState);
  for (cudaStream_t joined : capture->streams) capturing.erase(joined);
  active.erase(capture);
  for (auto it = captured_events.begin(); it != captured_events.end();)
    it = it->second == capture ? captured_events.erase(it) : std::next(it);
  const String why = capture->broken_by;
  *graph = why.empty() ? (cudaGraph_t) new Graph{capture->nodes} : nullptr;
  note(why.empty() ? "capture" : "failed capture", why.empty() ? std::to_string(capture->nodes) + " nodes" : why);
  delete capture;
  return why.empty() ? cudaSuccess : fail(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) { *count = ((Graph*)graph)->nodes; return cudaSuccess; }
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = (cudaGraphExec_t) new Graph(*(Graph*)graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  work(stream, "graph launch", "graph");
  Lock lock(mutex);
  counts["replayed node"] += ((Graph*)graph)->nodes;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return unsafe("cudaGraphDestroy"); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return unsafe("cudaGraphExecDestroy"); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { *e = (cudaEvent_t)(handle += 64); return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { *e = (cudaEvent_t)(handle += 64); return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(mutex);
  if (Capture* capture = capture_on(stream)) captured_events[event] = capture;
  else captured_events.erase(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return cudaEventRecord(event, stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(mutex);
  auto found = captured_events.find(event);
  if (found != captured_events.end()) {  // the stream is captured too from here on
    capturing[stream] = found->second;
    found->second->streams.insert(stream);
  } else if (capture_on(stream)) {
    note("outside", "a captured stream waits for work that is not captured");
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(mutex);
  auto found = captured_events.find(event);
  if (found == captured_events.end()) return unsafe("cudaEventQuery");
  broken(found->second, "cudaEventQuery of a captured event");
  return fail(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { note("wait", "cudaEventSynchronize"); return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { *ms = 1; return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  bool captured;
  { Lock lock(mutex); captured = capture_on(stream); }
  work(stream, "launch", "host function");
  if (!captured) function(data);
  return cudaSuccess;
}

// --- kernels
void** __cudaRegisterFatBinary(void*) { static void* any; return &any; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  Lock lock(mutex);
  kernel_names[host] = name;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
static thread_local struct { dim3 grid, block; size_t shared; cudaStream_t stream; } asked;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) { asked = {grid, block, shared, stream}; return 0; }
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = asked.grid, *block = asked.block, *shared = asked.shared, *(cudaStream_t*)stream = asked.stream;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* f, dim3, dim3, void**, size_t, cudaStream_t s) { work(s, "launch", kernel_name(f)); return cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3, dim3, void**, size_t, cudaStream_t s) { work(s, "launch", kernel_name((const void*)f)); return cudaSuccess; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void**) { work(c->stream, "launch", kernel_name(f)); return cudaSuccess; }
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* f) { *kernel = (cudaKernel_t)f; return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = 90;
  a->maxDynamicSharedSizeBytes = 49152;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) { *n = 2; return cudaSuccess; }

// --- the driver, as the runtime hands it out
static int driver_nothing() { return 0; }
static int driver_state(int, unsigned* flags, int* is_active) { *flags = 0; *is_active = 1; return 0; }
static int driver_context(void** context) { *context = (void*)1; return 0; }
static int driver_error(int, const char** text) { *text = "driver error"; return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** f, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
  const String asked_for = name;
  *f = asked_for == "cuDevicePrimaryCtxGetState" ? (void*)driver_state
       : asked_for == "cuCtxGetCurrent" ? (void*)driver_context
       : asked_for == "cuGetErrorString" ? (void*)driver_error : (void*)driver_nothing;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

void fake_kernel(void* stream, const char* name) { work((cudaStream_t)stream, "launch", name); }  // of driver.c

// --- products
static std::map<void*, cudaStream_t> blas_streams;
static int product(void* h) {
  cudaStream_t stream;
  { Lock lock(mutex); stream = blas_streams[h]; }
  work(stream, "launch", "product");
  return 0;
}
int cublasCreate_v2(void** h) { *h = (void*)(handle += 64); return unsafe("cublasCreate") ? 1 : 0; }
int cublasSetStream_v2(void* h, cudaStream_t stream) { Lock lock(mutex); blas_streams[h] = stream; return 0; }
int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void*, int* mode) { *mode = 0; return 0; }
int cublasSgemm_v2(void* h) { return product(h); }
int cublasDgemm_v2(void* h) { return product(h); }
int cublasSgemmEx(void* h) { return product(h); }
int cublasGemmEx(void* h) { return product(h); }
int cublasSgemv_v2(void* h) { return product(h); }
int cublasSgemmStridedBatched(void* h) { return product(h); }
int cublasGemmStridedBatchedEx(void* h) { return product(h); }
int cublasSdot_v2(void* h) { return product(h); }
int cublasDotEx(void* h) { return product(h); }
int cublasLtMatrixLayoutCreate(void** layout) { *layout = malloc(64); return 0; }
int cublasLtMatrixLayoutDestroy(void* layout) { free(layout); return 0; }
int cublasLtMatmulDescCreate(void** d) { *d = malloc(256); return 0; }
int cublasLtMatmulDescDestroy(void* d) { free(d); return 0; }
int cublasLtMatmulPreferenceCreate(void** p) { *p = malloc(256); return 0; }
int cublasLtMatmulPreferenceDestroy(void* p) { free(p); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* result, int* count) { memset(result, 0, 96); *count = 1; return 0; }
int cublasLtMatmul(void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*, void*, void*, void*, const void*, void*, size_t, cudaStream_t stream) {
  work(stream, "launch", "product");
  return 0;
}
unsigned long cublasLtGetVersion() { return 130101; }

// --- Fourier transforms and kernels compiled on the way
static std::map<int, cudaStream_t> fft_streams;
int cufftCreate(int* plan) { static int next = 1; *plan = next++; return 0; }
int cufftSetStream(int plan, cudaStream_t stream) { Lock lock(mutex); fft_streams[plan] = stream; return 0; }
int cufftXtMakePlanMany(int, int, void*, void*, long long, long long, int, void*, long long, long long, int, long long, size_t* bytes, int) { *bytes = 0; return 0; }
int cufftXtExec(int plan, void*, void*, int) { work(fft_streams[plan], "launch", "fft"); return 0; }
int cudnnCreate(void** h) { *h = (void*)(handle += 64); return 0; }
}
