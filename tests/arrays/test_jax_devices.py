"""Arrays of JAX on several devices, of which it makes four out of one CPU in a process of its own."""

import subprocess
import sys

import peers

PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import adafactor

mesh = Mesh(np.array(jax.devices()), ("data",))
copies, parts = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
values = jnp.arange(12.0).reshape(4, 3) / 7
grads = jnp.cos(values)
state = adafactor.init({"w": values}, learning_rate=0.1)
plain = adafactor.update({"w": values}, {"w": grads}, state)[0]["w"]

for placed in (jax.device_put(values, copies), values):
    new, _, _ = adafactor.update({"w": placed}, {"w": jax.device_put(grads, copies)}, state)
    assert (new["w"] == plain).all()
    assert new["w"].sharding == placed.sharding
    assert all((shard.data == plain).all() for shard in new["w"].addressable_shards)
w = np.array(values)
adafactor.step({"w": w}, {"w": jax.device_put(grads, copies)}, adafactor.init({"w": w}, learning_rate=0.1))
assert (w == plain).all()
assert adafactor.state_nbytes(jax.device_put(values, parts)) == 28

for role, call in (
    ("params", lambda x: adafactor.update({"w": x}, {"w": grads}, state)),
    ("grads", lambda x: adafactor.update({"w": values}, {"w": x}, state)),
):
    try:
        call(jax.device_put(values, parts))
        raise AssertionError("parts were taken")
    except BufferError as error:
        assert str(error).startswith(f"{role} w: a jaxlib"), error
        assert "unsharded" in str(error), error
"""


def test_copies_on_several_devices_are_read_once_and_parts_are_refused():
    peers.require("jax")
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], check=True, timeout=300)
