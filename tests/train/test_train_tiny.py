"""The command that trains Champ-Tiny on."""

import argparse
import shlex

import pytest

from tools import train_tiny


class Told:
    """Takes down what it is told to run, and whether the command line knows it."""

    def __init__(self, folder):
        from champ.train import commands

        self.folder, self.options = folder, []
        self.parser = argparse.ArgumentParser(exit_on_error=False)
        commands.add_commands(self.parser.add_subparsers(dest="command"))

    def __call__(self, words):
        self.options.append(self.parser.parse_args(shlex.split(words)))


def test_every_step_is_a_command_and_builds_on_the_one_before(tmp_path):
    told = Told(tmp_path)
    train_tiny.draw(told, 1)
    drawn = {(one.size, number) for one in told.options for number in range(one.first, one.first + one.count)}
    counted = sum(total for parts in train_tiny.PEOPLE.values() for _, _, total, _, _ in parts)
    assert len(drawn) == sum(one.count for one in told.options) == counted
    assert min(number for _, number in drawn) >= 8192 + 4096  # what the shipped networks and the finder have seen

    told.options.clear()
    train_tiny.train(told, "moving")
    names = [one.command for one in told.options]
    assert names == ["codec", "encode", "encode", "stage1", "stage1", "stage2", "export", "evaluate"]
    small, large, moving = told.options[3:6]
    assert small.transformers and not large.transformers
    assert str(large.init) == "small/model" and str(moving.init) == "large/model"
    assert told.options[-2].networks.parent == moving.out


def test_it_can_end_before_the_clips(tmp_path):
    told = Told(tmp_path)
    train_tiny.train(told, "large")
    assert [one.command for one in told.options][-3:] == ["stage1", "export", "evaluate"]


def test_it_stops_in_time(tmp_path):
    run = train_tiny.Run(tmp_path, minutes=0)
    with pytest.raises(train_tiny.Late):
        run("encode --data nothing --vae nothing")
