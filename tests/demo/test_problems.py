"""The world of the demo models: numbers are right, and training never sees held-out problems."""

import re
from itertools import islice

import pytest

from swarm.demo.problems import MAX_SUM, PEOPLE, WordProblem, answer_of, drills, problems

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
COUNT = 600  # enough for every kind of story


@pytest.fixture(scope="module", params=[True, False], ids=["held out", "training"])
def stories(request):
    return list(islice(problems(3, held_out=request.param), COUNT))


def check_equations(text):
    """Evaluate everything that looks like a calculation; returns the results."""
    equations = EQUATION.findall(text)
    assert len(equations) == text.count("=")
    for a, operator, b, result in equations:
        a, b, result = int(a), int(b), int(result)
        if operator == "/":
            assert b * result == a
        else:
            assert {"+": a + b, "-": a - b, "*": a * b}[operator] == result
    return [int(result) for *_, result in equations]


@pytest.mark.parametrize("held_out", [True, False])
def test_the_same_seed_gives_the_same_stream(held_out):
    first, second, other = (list(islice(problems(s, held_out=held_out), 20)) for s in (8, 8, 9))
    assert first == second
    assert not {p.question for p in first} & {p.question for p in other}


def test_drills_of_the_same_seed_are_the_same():
    assert list(islice(drills(4), 20)) == list(islice(drills(4), 20))
    assert list(islice(drills(4), 20)) != list(islice(drills(5), 20))


def test_training_and_held_out_problems_never_overlap():
    training = {
        p.question for seed in range(3) for p in islice(problems(seed, held_out=False), 2000)
    }
    held_out = {p.question for seed in range(3) for p in islice(problems(seed, held_out=True), 150)}
    assert not training & held_out


def test_one_problem_in_32_is_held_out_by_its_question_alone():
    held_out = [WordProblem(f"question {i}", "", 0).held_out for i in range(20_000)]
    assert sum(held_out) / len(held_out) == pytest.approx(1 / 32, rel=0.1)
    assert held_out == [
        WordProblem(f"question {i}", "another wording", 1).held_out for i in range(20_000)
    ]


def test_every_equation_of_a_solution_is_true_and_the_last_one_is_the_answer(stories):
    for problem in stories:
        assert check_equations(problem.solution)[-1] == problem.answer


def test_a_solution_ends_in_its_answer(stories):
    for problem in stories:
        assert problem.solution.endswith(f"{problem.answer}.\n#### {problem.answer}") or re.search(
            rf" {problem.answer} \w+\.\n#### {problem.answer}$", problem.solution
        )
        assert answer_of(problem.text) == problem.answer


def test_every_number_of_a_solution_was_given_or_calculated(stories):
    for problem in stories:
        known = set(re.findall(r"\d+", problem.question))
        for a, _, b, result in EQUATION.findall(problem.solution):
            assert {a, b} <= known
            known.add(result)


def test_numbers_stay_in_the_range_that_the_models_learn(stories):
    for problem in stories:
        numbers = [int(number) for number in re.findall(r"\d+", problem.text)]
        assert min(numbers) >= 1
        assert max(numbers) <= MAX_SUM


def test_problems_take_two_to_seven_calculations(stories):
    lengths = {len(EQUATION.findall(problem.solution)) for problem in stories}
    assert lengths == {2, 3, 4, 5, 6, 7}


def test_all_kinds_of_calculation_and_all_people_appear(stories):
    text = " ".join(problem.solution for problem in stories)
    assert {operator for _, operator, _, _ in EQUATION.findall(text)} == set("+-*/")
    assert all(person in text for person in PEOPLE)


def test_sentences_agree_with_their_subject(stories):
    text = " ".join(problem.solution for problem in stories)
    assert re.search(r", we (multiply|add|count) ", text)
    assert not re.search(r", we \w+s ", text)
    assert set(re.findall(r", (she|he) (?=multipl)(\w+)", text)) == {
        ("she", "multiplies"),
        ("he", "multiplies"),
    }


def test_the_prompt_is_the_beginning_of_the_text(stories):
    for problem in stories[:50]:
        assert problem.prompt == f"Problem: {problem.question}\nSolution:"
        assert problem.text == f"{problem.prompt} {problem.solution}"


def test_every_drill_is_true_and_stays_in_range():
    for drill in islice(drills(2), 500):
        results = check_equations(drill)
        assert len(results) == 8
        assert all(1 <= result <= 9 * 599 for result in results)
    assert next(drills(2, equations=3)).count("=") == 3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3.\n#### 3", 3),
        ("#### 12\nProblem: more", 12),
        ("#### 1,200", 1200),
        ("#### 1\n#### 2", 2),
        ("####7", 7),
        ("the answer is 3", None),
        ("", None),
        ("####", None),
        ("#### ", None),
        ("#### three", None),
        ("#### -3", None),
        ("#### 3.5", None),
        ("#### 3 dollars", None),
        ("#### ²", None),
        ("#### ٣", None),
    ],
)
def test_the_answer_is_the_whole_number_behind_the_last_mark(text, answer):
    assert answer_of(text) == answer
