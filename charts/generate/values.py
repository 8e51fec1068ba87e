"""What values.yaml says of each value: the comment that begins with `# --` above its key."""

import yaml


class Value:
    def __init__(self, path, about, default):
        self.path, self.about, self.default = path, about, default

    @property
    def name(self):
        return ".".join(self.path)


def described(text):
    """The values of a file in their order, each with its description.

    A leaf is a key that has a description: what is below it is the user's. Every other key has to lead to one.
    """
    document = yaml.safe_load(text)
    found, stack, comment = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = bare[5:]
        elif bare.startswith("#"):
            if comment is not None:
                comment += " " + bare[1:].strip()
        elif not bare:
            comment = None
        else:
            indent = len(line) - len(line.lstrip())
            while stack and stack[-1][0] >= indent:
                stack.pop()
            if any(leaf for _, _, leaf in stack):
                continue
            key, colon, rest = bare.partition(":")
            if not colon:
                raise ValueError(f"line {number}: {bare!r} is no key")
            stack.append((indent, key, comment is not None))
            path = [key for _, key, _ in stack]
            if comment is not None:
                default = document
                for key in path:
                    default = default[key]
                found.append(Value(path, comment, default))
            elif rest.strip():
                raise ValueError(f"line {number}: {'.'.join(path)} has no description")
            comment = None
    return found
