from tests.support.faults import markdown

print(markdown(), end="")
