"""Tasks for a memory, and sequences of one's own: what is asked is what was shown, as the task says."""

import pytest
import torch

from regard.app.data.generators.tasks import CONTEXT, ITEM, TASKS, Drawn


def episode(task: str, length: int = 5, bits: int = 4, count: int = 30):
    batch = Drawn(TASKS[task], count, length, bits, seed=0).batch(torch.arange(count))
    return TASKS[task].make(batch["numbers"])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [1, 2, 6])
def test_shapes_and_where_nothing_is_asked(task: str, length: int):
    made = episode(task, length, bits=1 if task == "ngrams" else 4)
    count, steps, width = made.input.shape
    assert made.target.shape == (count, steps, width - 2) and made.asked.shape == (count, steps)
    assert made.asked.any(1).all() and not (made.target * ~made.asked.unsqueeze(-1)).any()
    assert set(made.target.unique().tolist()) <= {0.0, 1.0}


def answers(made, row: int = 0):
    return made.target[row][made.asked[row]]


def bits(made, steps: slice, row: int = 0):
    return (made.input[row, steps, :-2] > 0).float()


def test_copy_and_reverse():
    made = episode("copy")
    assert torch.equal(answers(made), bits(made, slice(0, 5))) and made.input[0, 5].tolist() == [0, 0, 0, 0, 1, 0]
    backward = episode("reverse")
    assert torch.equal(answers(backward), bits(backward, slice(0, 5)).flip(0))


def test_repeat_copy_says_how_often():
    made = episode("repeat")
    times = (10 * made.input[:, 5, -1]).round().int()
    assert set(times.tolist()) == {1, 2, 3, 4, 5}
    for row, often in enumerate(times.tolist()):
        assert torch.equal(answers(made, row), bits(made, slice(0, 5), row).repeat(often, 1))


def test_associative_recall_asks_for_the_item_after_the_one_that_is_shown_again():
    made = episode("associative", length=4)
    for row in range(30):
        items = bits(made, slice(0, 5 * (1 + ITEM)), row).view(5, 1 + ITEM, 4)[:, 1:]
        at = [n for n in range(3) if torch.equal(items[n], items[4])]
        assert any(torch.equal(answers(made, row), items[n + 1]) for n in at)


def test_priority_sort():
    made = episode("sort")
    order = made.input[0, :5, -1].argsort(descending=True)
    assert torch.equal(answers(made), bits(made, slice(0, 5))[order])


def test_ngrams_follow_their_table():
    """Where the last bits were the same, the next is the likelier one more often than by chance."""
    made = episode("ngrams", length=60, bits=1, count=20)
    shown = (made.input[..., 0] > 0).long()
    context = torch.stack([shown[:, CONTEXT - 1 - n : shown.shape[1] - n] << n for n in range(CONTEXT)]).sum(0)
    following, agree, count = made.target[:, CONTEXT - 1 :, 0], 0.0, 0
    for row in range(20):
        for each in range(2**CONTEXT):
            found = following[row][context[row] == each]
            if len(found) > 5:
                agree, count = agree + float(found.mean().sub(0.5).abs()), count + 1
    assert agree / count > 0.25  # 0.318 of a chance from Beta(1/2, 1/2), and .1 of a fair coin


def test_what_is_fixed_does_not_change_and_what_is_not_is_new():
    task = TASKS["copy"]
    fixed, fresh = Drawn(task, 5, 3, 2, seed=1), Drawn(task, 5, 3, 2)
    some = torch.tensor([4, 0])
    assert torch.equal(fixed.batch(some)["numbers"], fixed.batch(some.flip(0))["numbers"].flip(0))
    assert not torch.equal(fresh.batch(some)["numbers"], fresh.batch(some)["numbers"])
