/* A libcuda.so.1 of one function. NVIDIA's bindings ask it where all others are, and `answers` says it. */

typedef int answer(const char *name, void **function, int version, unsigned long long flags, int *status);

static answer *asked;

void answers(answer *who) { asked = who; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
  return asked(name, function, version, flags, status);
}
