// The least that the passes of a step cost on this machine: plain loops that read, add up and write what a step has to,
// with sums in the project's order, and nothing else. benchmarks/loops.py builds and calls this.
//
// Two things are varied: how many rows are walked side by side, and what of each stream is asked for how far ahead.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kBlock = 512;  // columns after which lanes are folded
constexpr std::int64_t kGroup = 16;   // rows of which column sums are float
constexpr std::int64_t kMostCols = 4096;
constexpr int kPage = 4096;
constexpr int kEachPage = -1;  // asks for the first line of each page, and for no other

using Lanes = float __attribute__((vector_size(4 * kLanes)));
using Wide = double __attribute__((vector_size(8 * kLanes)));
using Words = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using Halves = std::uint16_t __attribute__((vector_size(2 * kLanes)));

// What arrays are stored as. Bfloat16 is the upper half of a float, rounded to nearest even.
struct Bfloat16 {
  std::uint16_t bits;
};

template <class Vector, class T>
Vector load_as(const T* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}
Lanes load(const float* from) { return load_as<Lanes>(from); }
Lanes load(const Bfloat16* from) {
  const Words words = __builtin_convertvector(load_as<Halves>(from), Words) << 16;
  return reinterpret_cast<Lanes>(words);
}
void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }
void store(Bfloat16* to, Lanes lanes) {
  const Words words = reinterpret_cast<Words>(lanes);
  const Halves halves = __builtin_convertvector((words + 0x7fff + (words >> 16 & 1)) >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

double fold(Lanes lanes) {
  double sums[kLanes];
  for (int i = 0; i < kLanes; ++i) sums[i] = static_cast<double>(lanes[i]);
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

// Asks for what lies so many bytes ahead of sixteen elements, or, where they begin a page, for the next one.
template <int ahead, class S>
void prefetch(const S* from) {
  const auto place = reinterpret_cast<std::uintptr_t>(from);
  const bool asks = ahead == kEachPage ? place % kPage < kLanes * sizeof(S) : ahead > 0;
  if (asks) __builtin_prefetch(reinterpret_cast<const void*>(place + (ahead == kEachPage ? kPage : ahead)));
}

// Some rows of a matrix, of one thread.
template <class S>
struct Rows {
  const S* g;
  S* p;
  float* v;
  std::int64_t rows, cols;
  const float* row_factors;
  const float* col_factors;
  double* row_sums;
  double* col_sums;
};

// Calls body(first, last) for the blocks of a row.
template <class Body>
void for_blocks(std::int64_t cols, const Body& body) {
  for (std::int64_t first = 0; first < cols; first += kBlock) body(first, std::min(cols, first + kBlock));
}

// Reads g: sums of squares by row and by column. Returns all of them together.
template <class S, int side_by_side, int ahead>
double moments(const Rows<S>& at) {
  alignas(64) float group[kMostCols];
  double total = 0;
  std::fill(at.col_sums, at.col_sums + at.cols, 0.0);
  for (std::int64_t first = 0; first < at.rows; first += kGroup) {
    for (std::int64_t row = first; row < first + kGroup; row += side_by_side) {
      double sums[side_by_side] = {};
      for_blocks(at.cols, [&](std::int64_t from, std::int64_t to) {
        Lanes squares[side_by_side] = {};
        for (std::int64_t c = from; c < to; c += kLanes) {
          Lanes column = row == first ? Lanes{} : load(group + c);
          for (int k = 0; k < side_by_side; ++k) {
            const S* g = at.g + (row + k) * at.cols + c;
            prefetch<ahead>(g);
            const Lanes x = load(g) * at.row_factors[0];
            squares[k] += x * x;
            column += x * x;
          }
          store(group + c, column);
        }
        for (int k = 0; k < side_by_side; ++k) sums[k] += fold(squares[k]);
      });
      for (int k = 0; k < side_by_side; ++k) total += at.row_sums[row + k] = sums[k];
    }
    for (std::int64_t c = 0; c < at.cols; ++c) at.col_sums[c] += static_cast<double>(group[c]);
  }
  return total;
}

// Reads g and p: the sums of U^2 and of P^2.
template <class S, int side_by_side, int ahead>
double squares(const Rows<S>& at) {
  double of_update = 0, of_parameter = 0;
  for (std::int64_t row = 0; row < at.rows; row += side_by_side) {
    double updates[side_by_side] = {}, parameters[side_by_side] = {};
    for_blocks(at.cols, [&](std::int64_t from, std::int64_t to) {
      Lanes u_squares[side_by_side] = {}, p_squares[side_by_side] = {};
      for (std::int64_t c = from; c < to; c += kLanes) {
        const Lanes factor = load(at.col_factors + c);
        for (int k = 0; k < side_by_side; ++k) {
          const std::int64_t i = (row + k) * at.cols + c;
          prefetch<ahead>(at.g + i);
          prefetch<ahead>(at.p + i);
          const Lanes u = load(at.g + i) * at.row_factors[row + k] * factor;
          const Lanes p = load(at.p + i);
          u_squares[k] += u * u;
          p_squares[k] += p * p;
        }
      }
      for (int k = 0; k < side_by_side; ++k) {
        updates[k] += fold(u_squares[k]);
        parameters[k] += fold(p_squares[k]);
      }
    });
    for (int k = 0; k < side_by_side; ++k) {
      of_update += updates[k];
      of_parameter += parameters[k];
    }
  }
  return of_update + of_parameter;
}

// Reads g and p, writes p.
template <class S, int side_by_side, int ahead>
void apply(const Rows<S>& at) {
  for (std::int64_t row = 0; row < at.rows; row += side_by_side) {
    for (std::int64_t c = 0; c < at.cols; c += kLanes) {
      const Lanes factor = load(at.col_factors + c);
      for (int k = 0; k < side_by_side; ++k) {
        const std::int64_t i = (row + k) * at.cols + c;
        prefetch<ahead>(at.g + i);
        prefetch<ahead>(at.p + i);
        store(at.p + i, load(at.p + i) - load(at.g + i) * at.row_factors[row + k] * factor);
      }
    }
  }
}

// The compilers' vectors have no roots; a loop over an array becomes the instruction.
template <class T, class Vector>
Vector square_roots(Vector x) {
  T numbers[kLanes];
  std::memcpy(numbers, &x, sizeof x);
  for (T& each : numbers) each = std::sqrt(each);
  std::memcpy(&x, numbers, sizeof x);
  return x;
}

// The update of an unfactored leaf from g and what it makes of v, as the step does it.
Lanes full_update(Lanes g, Lanes v) { return g / square_roots<float>(v); }
Lanes full_moment(Lanes g, Lanes v) { return 0.75f * v + 0.25f * (g * g + 1e-30f); }

// Reads g, p and v: the sums of g^2, U^2 and P^2.
template <class S, int ahead>
double look(const Rows<S>& at) {
  double total = 0;
  for_blocks(at.rows * at.cols, [&](std::int64_t from, std::int64_t to) {
    Lanes g_squares = {}, u_squares = {}, p_squares = {};
    for (std::int64_t i = from; i < to; i += kLanes) {
      prefetch<ahead>(at.g + i);
      prefetch<ahead>(at.p + i);
      prefetch<ahead>(at.v + i);
      const Lanes g = load(at.g + i), p = load(at.p + i);
      const Lanes u = full_update(g, full_moment(g, load(at.v + i)));
      g_squares += g * g;
      u_squares += u * u;
      p_squares += p * p;
    }
    total += fold(g_squares) + fold(u_squares) + fold(p_squares);
  });
  return total;
}

// Reads g, p and v, writes p and v.
template <class S, int ahead>
void apply_full(const Rows<S>& at) {
  for (std::int64_t i = 0; i < at.rows * at.cols; i += kLanes) {
    prefetch<ahead>(at.g + i);
    prefetch<ahead>(at.p + i);
    prefetch<ahead>(at.v + i);
    const Lanes g = load(at.g + i), v = full_moment(g, load(at.v + i));
    store(at.v + i, v);
    store(at.p + i, load(at.p + i) - full_update(g, v) * at.row_factors[0]);
  }
}

// What 3x3 slices cost besides their passes over memory: twelve quotients and six roots in double for nine elements,
// of sixteen slices at once, from numbers that stay in the cache.
double quotients_and_roots(std::int64_t slices) {
  constexpr int side = 3;
  volatile double seed = 1.25;
  Wide numbers[2 * side], total = {};
  for (auto& each : numbers) each = Wide{} + seed;
  for (std::int64_t slice = 0; slice < slices; slice += kLanes) {
    for (auto& each : numbers) {
      const Wide mean = each / 3.0;     // of a row, or of a column
      const Wide inverse = 1.5 / mean;  // M / R, or 1 / C
      total += square_roots<double>(inverse);
      each += 1e-3;
    }
  }
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += total[i];
  return sum;
}

// Where threads meet without going to sleep.
class Meeting {
 public:
  explicit Meeting(int threads) : threads_(threads) {}

  void wait() {
    const int round = round_.load();
    if (arrived_.fetch_add(1) + 1 == threads_) {
      arrived_.store(0);
      round_.fetch_add(1);
      return;
    }
    for (int looks = 0; round_.load() == round; ++looks) {
      if (looks >= kLooks) std::this_thread::yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

 private:
  static constexpr int kLooks = 10000;
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

}  // namespace

enum Kind : std::int32_t { kMatrix, kVector, kQuotients };

// How a tree of equal leaves is walked: all passes of a leaf, leaf by leaf; `moments` of all leaves, then the others
// leaf by leaf from the last to the first; or the tree pass by pass.
enum Order : std::int32_t { kAtOnce, kLooksFirst, kWholePasses };

// What is run: a tree of `leaves` equal leaves that follow each other in memory, all divided by rows among the threads.
// `phases` has a bit for each pass. Factors are of one leaf; each thread has `cols` column sums, and one number in
// `found`.
struct Job {
  void* g;
  void* p;
  float* v;
  const float* row_factors;
  const float* col_factors;
  double* row_sums;
  double* col_sums;
  double* found;
  std::int64_t leaves, rows, cols;
  std::int32_t kind, order, phases, is_bfloat16, side_by_side, ahead, threads, times;
};

namespace {

template <class S, int side_by_side, int ahead>
class Share {
 public:
  Share(const Job& job, Meeting& meeting, int thread) : job_(job), meeting_(meeting), thread_(thread) {}

  void operator()() {
    if (job_.kind == kQuotients) {
      found_ += quotients_and_roots(job_.leaves * job_.rows / job_.threads);
    } else if (job_.order == kAtOnce) {
      for (std::int64_t leaf = 0; leaf < job_.leaves; ++leaf) {
        first(leaf);
        meeting_.wait();
        second(leaf);
        meeting_.wait();
        third(leaf);
      }
    } else {
      for (std::int64_t leaf = 0; leaf < job_.leaves; ++leaf) first(leaf);
      meeting_.wait();
      walk_back();
    }
    job_.found[thread_] = found_;
  }

 private:
  void walk_back() {
    const bool by_leaf = job_.order == kLooksFirst;
    for (std::int64_t leaf = job_.leaves; leaf-- > 0;) {
      second(leaf);
      if (!by_leaf) continue;
      meeting_.wait();
      third(leaf);
    }
    if (by_leaf) return;
    meeting_.wait();
    for (std::int64_t leaf = 0; leaf < job_.leaves; ++leaf) third(leaf);
  }

  Rows<S> rows_of(std::int64_t leaf) const {
    const std::int64_t share = job_.rows / job_.threads;
    const std::int64_t first = leaf * job_.rows * job_.cols + thread_ * share * job_.cols;
    return {static_cast<const S*>(job_.g) + first,
            static_cast<S*>(job_.p) + first,
            job_.v + first,
            share,
            job_.cols,
            job_.row_factors + thread_ * share,
            job_.col_factors,
            job_.row_sums + thread_ * share,
            job_.col_sums + thread_ * job_.cols};
  }

  bool has(int phase) const { return job_.phases >> phase & 1; }
  void first(std::int64_t leaf) {
    if (!has(0)) return;
    const Rows<S> at = rows_of(leaf);
    found_ += job_.kind == kVector ? look<S, ahead>(at) : moments<S, side_by_side, ahead>(at);
  }
  void second(std::int64_t leaf) {
    if (has(1) && job_.kind == kMatrix) found_ += squares<S, side_by_side, ahead>(rows_of(leaf));
  }
  void third(std::int64_t leaf) {
    if (!has(2)) return;
    const Rows<S> at = rows_of(leaf);
    job_.kind == kVector ? apply_full<S, ahead>(at) : apply<S, side_by_side, ahead>(at);
  }

  const Job& job_;
  Meeting& meeting_;
  int thread_;
  double found_ = 0;
};

template <class S, int side_by_side, int ahead>
void run(const Job& job, double* seconds) {
  Meeting meeting(job.threads);
  const auto work = [&](int thread) {
    for (int i = 0; i < job.times; ++i) {
      meeting.wait();
      const auto start = std::chrono::steady_clock::now();
      Share<S, side_by_side, ahead>(job, meeting, thread)();
      meeting.wait();
      if (thread == 0) seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
  };
  // The threads end here: nobody spins when somebody else's turn has come.
  std::vector<std::thread> others;
  for (int thread = 1; thread < job.threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& each : others) each.join();
}

// Runs the job ahead by one of these numbers of bytes; false: by none of them.
template <class S, int side_by_side, int... ahead>
bool run_ahead(const Job& job, double* seconds) {
  return ((job.ahead == ahead && (run<S, side_by_side, ahead>(job, seconds), true)) || ...);
}

template <class S>
bool run_as(const Job& job, double* seconds) {
  if (job.side_by_side == 1) return run_ahead<S, 1, 0, 1024, 2048, 4096, kEachPage>(job, seconds);
  return job.side_by_side == 4 && run_ahead<S, 4, 0, 1024>(job, seconds);
}

}  // namespace

// Makes the job so many times and writes the seconds of each. False for a job without loops: those above, with columns
// in sixteens, up to 4096, and groups of sixteen rows a thread.
extern "C" bool run_job(const Job* job, double* seconds) {
  const bool fits = job->threads > 0 && job->rows % (job->threads * kGroup) == 0 && job->cols % kLanes == 0;
  if (!fits || (job->kind == kMatrix && job->cols > kMostCols)) return false;
  return job->is_bfloat16 ? run_as<Bfloat16>(*job, seconds) : run_as<float>(*job, seconds);
}
