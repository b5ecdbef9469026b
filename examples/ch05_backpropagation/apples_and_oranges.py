"""Multiplication and addition as layers: what fruit costs, and how each price moves the sum.

Book, sections 5.1 to 5.4; figures 5-2, 5-3, 5-14 to 5-17.
"""

from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.plots import Edge


class MulLayer:
    """z = x y        dL/dx = dL/dz y        dL/dy = dL/dz x."""

    def forward(self, x, y):
        self.x, self.y = x, y
        return x * y

    def backward(self, dout):
        return dout * self.y, dout * self.x


class AddLayer:
    """z = x + y        dL/dx = dL/dy = dL/dz."""

    def forward(self, x, y):
        return x + y

    def backward(self, dout):
        return dout, dout


def two_apples(experiment: Experiment) -> None:
    apple, count, tax = 100, 2, 1.1
    times_count, times_tax = MulLayer(), MulLayer()

    apples = times_count.forward(apple, count)
    price = times_tax.forward(apples, tax)

    d_apples, d_tax = times_tax.backward(1)
    d_apple, d_count = times_count.backward(d_apples)

    experiment.record("two apples cost", price, ".0f", book="220")
    slopes = [d_apple, d_count, d_tax]
    experiment.record(
        "its derivatives by the apple's price, their number, the tax",
        slopes,
        ".4g",
        book="2.2, 110, 200",
    )
    nodes = {
        "price of an apple": (0.0, 1.0),
        "number of apples": (0.0, 0.0),
        "tax rate": (1.0, 0.0),
        "×#1": (1.0, 1.0),
        "×#2": (2.0, 1.0),
        "to pay": (3.0, 1.0),
    }
    edges = [
        edge("price of an apple", "×#1", apple, d_apple),
        edge("number of apples", "×#1", count, d_count),
        edge("×#1", "×#2", apples, d_apples),
        edge("tax rate", "×#2", tax, d_tax),
        edge("×#2", "to pay", price, 1),
    ]
    experiment.save(plots.computational_graph(nodes, edges, size=(7, 2)), "apples")


def apples_and_oranges(experiment: Experiment) -> None:
    apple, apple_count, orange, orange_count, tax = 100, 2, 150, 3, 1.1
    times_apples, times_oranges, plus, times_tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()

    apples = times_apples.forward(apple, apple_count)
    oranges = times_oranges.forward(orange, orange_count)
    fruit = plus.forward(apples, oranges)
    price = times_tax.forward(fruit, tax)

    d_fruit, d_tax = times_tax.backward(1)
    d_apples, d_oranges = plus.backward(d_fruit)
    d_orange, d_orange_count = times_oranges.backward(d_oranges)
    d_apple, d_apple_count = times_apples.backward(d_apples)

    experiment.record("two apples and three oranges cost", price, ".0f", book="715")
    experiment.record(
        "its derivatives by number and price of apples, price and number of oranges, the tax",
        [d_apple_count, d_apple, d_orange, d_orange_count, d_tax],
        ".4g",
        book="110, 2.2, 3.3, 165, 650",
    )
    nodes = {
        "number of apples": (0.0, 5.0),
        "price of an apple": (0.0, 3.0),
        "price of an orange": (0.0, 2.0),
        "number of oranges": (0.0, 0.0),
        "tax rate": (2.4, 0.0),
        "×#apples": (1.4, 4.0),
        "×#oranges": (1.4, 1.0),
        "+": (2.4, 2.5),
        "×#tax": (3.4, 2.5),
        "to pay": (4.4, 2.5),
    }
    edges = [
        edge("number of apples", "×#apples", apple_count, d_apple_count),
        edge("price of an apple", "×#apples", apple, d_apple),
        edge("price of an orange", "×#oranges", orange, d_orange),
        edge("number of oranges", "×#oranges", orange_count, d_orange_count),
        edge("×#apples", "+", apples, d_apples),
        edge("×#oranges", "+", oranges, d_oranges),
        edge("+", "×#tax", fruit, d_fruit),
        edge("tax rate", "×#tax", tax, d_tax),
        edge("×#tax", "to pay", price, 1),
    ]
    experiment.save(plots.computational_graph(nodes, edges, size=(8.5, 3.8)), "oranges")


def edge(start, end, value, slope):
    return Edge(start, end, f"{value:.4g}", f"{slope:.4g}")


def main(experiment: Experiment) -> None:
    two_apples(experiment)
    apples_and_oranges(experiment)


if __name__ == "__main__":
    run(main)
