"""Every server option, declared once: as a flag, a ``SHOAL_`` variable, a TOML key, and a row of the documentation.

::

    kinds       what a value may be: text in, value out
    declare     one option and how it is declared
    server      ServerOptions: the declarations
    checks      what options must be together
    unsupported Triton's options that Shoal does not have, and what to do instead
    read        flag > variable > TOML file > default
    command     the click command made from the declarations
    page        the documentation made from the declarations
"""

from shoal.options.checks import check_options
from shoal.options.declare import Option, OptionError
from shoal.options.kinds import BackendSetting
from shoal.options.page import markdown
from shoal.options.read import read_options
from shoal.options.server import OPTIONS, ServerOptions

__all__ = [
    "OPTIONS",
    "BackendSetting",
    "Option",
    "OptionError",
    "ServerOptions",
    "check_options",
    "markdown",
    "read_options",
]
