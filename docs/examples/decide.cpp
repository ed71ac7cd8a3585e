// A control loop over a model that `planet export RUN model.onnx --to onnx` wrote. No Python.
//
//     g++ -std=c++17 -O2 decide.cpp -I ORT/include -L ORT/lib -lonnxruntime -o decide
//     ./decide model.onnx 100
//
// ORT is ONNX Runtime's release archive. `observe` and `act` stand for your camera and your motors.
// docs/deploy.md says what goes in and what comes out; this program asks the file itself.

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

static const OrtApi *ort = OrtGetApiBase()->GetApi(17);

static void check(OrtStatus *status) {
  if (!status) return;
  std::fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
  std::exit(1);
}

struct Tensor {  // of one input or output: its bytes are kept from one decision to the next
  std::vector<int64_t> shape;
  ONNXTensorElementDataType type;
  std::vector<char> bytes;
  size_t count() const {
    size_t n = 1;
    for (int64_t d : shape) n *= static_cast<size_t>(d);
    return n;
  }
  float *floats() { return reinterpret_cast<float *>(bytes.data()); }
};

using Tensors = std::map<std::string, Tensor>;

// Reads the names and shapes of a session's inputs.
static Tensors inputs_of(OrtSession *session, OrtAllocator *memory) {
  Tensors inputs;
  size_t count = 0;
  check(ort->SessionGetInputCount(session, &count));
  for (size_t i = 0; i < count; i++) {
    char *name = nullptr;
    OrtTypeInfo *info = nullptr;
    const OrtTensorTypeAndShapeInfo *about = nullptr;
    check(ort->SessionGetInputName(session, i, memory, &name));
    check(ort->SessionGetInputTypeInfo(session, i, &info));
    check(ort->CastTypeInfoToTensorInfo(info, &about));
    Tensor &tensor = inputs[name];
    size_t rank = 0;
    check(ort->GetDimensionsCount(about, &rank));
    tensor.shape.resize(rank);
    check(ort->GetDimensions(about, tensor.shape.data(), rank));
    check(ort->GetTensorElementType(about, &tensor.type));
    const bool floats = tensor.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;  // else uint8 or bool
    tensor.bytes.assign(tensor.count() * (floats ? 4 : 1), 0);
    ort->ReleaseTypeInfo(info);
    check(ort->AllocatorFree(memory, name));
  }
  return inputs;
}

// Runs a decision: the action, and the carry into the inputs of the next one.
static std::vector<float> decide(OrtSession *session, OrtMemoryInfo *host, Tensors &inputs,
                                 const std::vector<std::string> &outputs) {
  std::vector<const char *> in, out;
  std::vector<OrtValue *> given, made(outputs.size(), nullptr);
  for (auto &[name, tensor] : inputs) {
    OrtValue *value = nullptr;
    check(ort->CreateTensorWithDataAsOrtValue(host, tensor.bytes.data(), tensor.bytes.size(),
                                              tensor.shape.data(), tensor.shape.size(),
                                              tensor.type, &value));
    in.push_back(name.c_str());
    given.push_back(value);
  }
  for (const std::string &name : outputs) out.push_back(name.c_str());
  check(ort->Run(session, nullptr, in.data(), given.data(), in.size(), out.data(), out.size(),
                 made.data()));
  std::vector<float> action;
  for (size_t i = 0; i < outputs.size(); i++) {
    void *data = nullptr;
    check(ort->GetTensorMutableData(made[i], &data));
    if (outputs[i] == "action") {
      Tensor &executed = inputs.at("executed_action");  // of the same shape
      action.assign(static_cast<float *>(data), static_cast<float *>(data) + executed.count());
    } else if (outputs[i].rfind("next_", 0) == 0) {
      Tensor &next = inputs.at(outputs[i].substr(5));
      std::memcpy(next.bytes.data(), data, next.bytes.size());
    }
    ort->ReleaseValue(made[i]);
  }
  for (OrtValue *value : given) ort->ReleaseValue(value);
  return action;
}

// Your camera: here a gray picture. Observations are all inputs that this program does not know.
static void observe(Tensors &inputs) {
  for (auto &[name, tensor] : inputs)
    if (tensor.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
      std::fill(tensor.bytes.begin(), tensor.bytes.end(), static_cast<char>(127));
}

// Your motors: returns what they really did.
static std::vector<float> act(const std::vector<float> &action) { return action; }

int main(int argc, char **argv) {
  if (argc < 2 || !ort) return std::fprintf(stderr, "usage: decide model.onnx [steps]\n"), 2;
  OrtEnv *env = nullptr;
  OrtSessionOptions *options = nullptr;
  OrtSession *session = nullptr;
  OrtAllocator *memory = nullptr;
  OrtMemoryInfo *host = nullptr;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "decide", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->GetAllocatorWithDefaultOptions(&memory));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &host));
  Tensors inputs = inputs_of(session, memory);
  std::vector<std::string> outputs = {"action"};
  for (const auto &[name, tensor] : inputs)
    if (name == "deter" || name == "stoch" || name == "mean" || name == "elites" || name == "known")
      outputs.push_back("next_" + name);
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int step = 0, steps = argc > 2 ? std::atoi(argv[2]) : 10; step < steps; step++) {
    observe(inputs);
    inputs.at("is_first").bytes[0] = step == 0;
    for (auto &[name, tensor] : inputs) {
      const bool pixels = name.rfind("pixel_noise", 0) == 0;
      for (size_t i = 0; (pixels || name == "noise") && i < tensor.count(); i++)
        tensor.floats()[i] = pixels ? uniform(random) : normal(random);
    }
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<float> done = act(decide(session, host, inputs, outputs));
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - begin;
    std::copy(done.begin(), done.end(), inputs.at("executed_action").floats());
    std::printf("%d %.1f ms", step, ms.count());
    for (float number : done) std::printf(" %.6f", number);
    std::printf("\n");
  }
}
