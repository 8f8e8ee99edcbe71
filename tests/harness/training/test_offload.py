"""Offloading, with a device that only takes notes."""

from __future__ import annotations

import copy

import torch

from harness.training.offload import Offloader, move


class Desk:
    """A mover that records where everything is and how many roles were there at once."""

    def __init__(self) -> None:
        self.places = {"model": "gpu", "optimizer": "gpu", "target": "gpu"}
        self.log: list[tuple[str, str]] = []

    def __call__(self, thing: str, place: str) -> None:
        self.places[thing] = place
        self.log.append((thing, place))


def roles(enabled: bool) -> tuple[Offloader, Desk]:
    desk = Desk()
    offloader = Offloader("gpu", enabled, desk)
    offloader.add("generator", lambda: ["model", "optimizer"])
    offloader.add("target", lambda: ["target"])
    return offloader, desk


def test_only_the_active_role_stays():
    offloader, desk = roles(True)
    offloader.activate("generator")
    assert desk.places == {"model": "gpu", "optimizer": "gpu", "target": "cpu"}
    offloader.activate("target")
    assert desk.places == {"model": "cpu", "optimizer": "cpu", "target": "gpu"}
    assert desk.log[-3:] == [("model", "cpu"), ("optimizer", "cpu"), ("target", "gpu")]  # leave first, then come
    moves = len(desk.log)
    offloader.activate("target")
    assert len(desk.log) == moves


def test_nothing_moves_where_all_fit():
    offloader, desk = roles(False)
    for name in ("generator", "target", "generator"):
        offloader.activate(name)
    assert desk.log == []


def trained_once() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_modules_and_optimizer_states_go_to_another_device():
    """The meta device stands in for a second one: what arrives there has left the first."""
    model, optimizer = trained_once()
    for thing in (optimizer, model):
        move(thing, "meta")
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert {p.device.type for p in model.parameters()} == {"meta"} == {value.device.type for value in states}


def test_after_a_round_trip_the_optimizer_still_steps_these_parameters():
    (model, optimizer), (other, same) = trained_once(), trained_once()
    other.load_state_dict(model.state_dict())
    same.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    offloader = Offloader("cpu", True)
    offloader.add("generator", lambda: [model, optimizer])
    offloader.add("target", lambda: [])
    for name in ("target", "generator"):
        offloader.activate(name)
    for module, steps in ((model, optimizer), (other, same)):
        module(torch.ones(1, 3)).pow(2).sum().backward()
        steps.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
