// A block of a GPU's threads on one thread of a CPU: each is a fiber, which runs until it has to wait for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

namespace emulation {

// In which order the threads of a block get their turns, and the blocks of a launch.
enum class Order { forward, backward, shuffled };

// The numbers below n, in an order.
std::vector<int> numbers_in(Order order, int n, std::mt19937_64& random);

class Block {
 public:
  static constexpr int kTeamSize = 16;

  Block(int threads, Order order);

  // Runs body() once on each thread. Whoever waits for a thread that has ended ends the program: on a GPU it would
  // hang.
  void run(const std::function<void()>& body);

  static Block& running() { return *running_; }
  int thread() const { return thread_; }

  void meet() { wait(all_, static_cast<int>(fibers_.size())); }
  void meet_team() { wait(team().barrier, kTeamSize); }

  // What another lane of the team gives in the same call.
  double hear(double number, int lane);

  [[noreturn]] static void give_up(const char* why);

 private:
  // Where a thread waits for others: all of them have to come.
  struct Barrier {
    int arrived = 0;
    std::uint64_t rounds = 0;
  };
  struct Fiber {
    std::unique_ptr<std::byte[]> stack;
    void* top = nullptr;  // of what it left on its stack
    bool has_ended = false;
    unsigned calls = 0;
    void* shadow = nullptr;
  };
  struct Team {
    Barrier barrier;
    double numbers[2][kTeamSize] = {};
  };

  Team& team() { return teams_[static_cast<std::size_t>(thread_ / kTeamSize)]; }
  Fiber& fiber() { return fibers_[static_cast<std::size_t>(thread_)]; }
  void wait(Barrier& barrier, int size);
  void begin(Fiber& fiber);
  void resume();
  void yield();
  void leave_for_scheduler(void** shadow);
  void arrive(void* shadow);
  static void enter();

  static inline Block* running_ = nullptr;
  Order order_;
  std::mt19937_64 random_{1};
  std::vector<Fiber> fibers_;
  std::vector<Team> teams_;
  Barrier all_;
  void* scheduler_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  int thread_ = 0;
  int alive_ = 0;
  std::uint64_t progress_ = 0;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_size_ = 0;
};

}  // namespace emulation
