"""JPEG XL files of libjxl 0.11.2's encoder, called by its C interface, in base64 of zlib.

All show `PICTURE` but "animation", whose second frame is its negative, and "a hidden frame", which has one of
4000 x 4000 pixels that is never shown.
"""

import base64
import zlib

import numpy as np

PICTURE = np.kron(
    np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), np.ones((6, 5, 1), np.uint8)
)
ALPHA = np.tile(np.arange(20, dtype=np.uint8) * 13, (18, 1))
_PACKED = {
    "bare codestream": (
        "eNoBWgCl//8KiAAmgEgIBAEANAFLGJOOg4UpMGIqJnWuvUAwAPO/VgCsHhNq1lMnLHdcDvGH+7iVLaLntTPSN5gXdcTg9DaDVr4i"
        "T3xn5wmjRvCkxeXTBGl/ksSmIKiYBw0AJtI="
    ),
    "orientation 1": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgEZyf+5OhjUGjw4WBgZTBi9JSb3NbdqGiRpqZWu2+tgwPB5fxjD"
        "GjnhrGvB6jrlMXwf23/vmKq76PlW40vmM8RLjzz4YtYctk/Jvyb9Oeditw9Ljj69zJJZP+nIMoUVM9gBkmsxJw=="
    ),
    "orientation 2": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUJBTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAXvgML4="
    ),
    "orientation 3": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUNBTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAYFAMM4="
    ),
    "orientation 4": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjULBTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAYagMN4="
    ),
    "orientation 5": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUPBTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAYwAMO4="
    ),
    "orientation 6": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUIhTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAZFgMP4="
    ),
    "orientation 7": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUMhTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAZbAMQ4="
    ),
    "orientation 8": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJJgMZyf+5OhjUKhTUOFgYGUwYvSUm9zW3ahokaamVrtvrYMDweX8Y"
        "wxo54axrweo65TF8H9t/75iqu+j5VuNL5jPES488+GLWHLZPyb8m/TnnYrcPS44+vcySWT/pyDKFFTPYAZwgMR4="
    ),
    "grey": (
        "eNoBRQC6//8KiAAmgKC4EQgEAQDYAEsoMt2E9QbvFE4zBQWTwIipi3dy2QWAAaCKpAXwYa6j85P98Pp5vMhr88NHwjUAReJBggPG"
        "IeWmH34="
    ),
    "grey with alpha": (
        "eNoBgwB8//8KiAAmgEVxIwgQEADQAUsoNBaej4KCgpKiEInohjDG4IUxjFQkGSNFleUGDo6OMRi8wAEAHqDvIuXRawHRaUgaGhyV"
        "8gEF+orjPmJ+aBmQb66rOu9l1Y4Vo3qV4tRX9aJf1WqqisqoTq22qhaOX1VVfeTRx//H/9//0f9gHvqvAWUn8DU9rA=="
    ),
    "alpha": (
        "eNoBZAGb/v8KiAAmgJUIEBAAXAVLOEC5TVcMheXFq98rKCgoKSACKlfu8XCPwQJtRMOGqMFYwkB4AeEBgPsDALgCXBcwACDuo6ET"
        "5wbkAwRvthx1FuJjo7w91upsZVEWl78BOZJmyYHlNMoxA4JMvGTe5gDYiEwtQabWPIAAHJuFM5L7gAB86wyArwag8DSUD0CljwJF"
        "oQQVI/6JNoDv4mgj+tMrewZYq1tkRuxrmjYFtW61adsiAamBxPn5PY+RlQ6fHh/uaLIwR6unefwD2VhyPJlVS/xOvz6/V+cQ43WT"
        "tQBif3Juy/VkBGIAnZAxAHV2mGQmRSambGYtAHYAA/KppoCAccq03FBuclD7v/3AZWSOCUefGdSEDI/RSWtwMORP9uwgEDLLPDUK"
        "Wf45/rZgSN1Q6M1Apgkxwl3wpT8ZQgeBv5Uk8sqGNMH4gRdB5GSY3uQMUbojXRckLOAwLKRgIVygIejxwT0Bbgyfdg=="
    ),
    "premultiplied alpha": (
        "eNoBPgHB/v8KiAAmgAFQAggQEAC8BEs4QLlNpwyF5anEwfcVFMwBoLLc4yWtzdpAiOsFRAcIpGMAuDcGrboKG7uStN2pE3q8IHo7"
        "K3aYzzQf+Y16QKQpgDEW6tBTMDp3InM0GtAk5Cc3GpkEBIlhzZYyhdO8RS7OQrkQbbdKwK/xEwVspu/hHeCdY5CwPKBDVubRSpyg"
        "4QeNayTZiAtbATKpwrgc5bZ1qUqtQZ19edNXXQEm0In0a4kGbhFZsLJjKYrkfKEFTgYymchCuf6UpwuECtnKUqjE09qvdl0Fo1OU"
        "dlzjNLxw1RQjr/GdnhtcTvF0NCf800jGyU6aXbARu3LruX2S9A2ofaGCGIGDSJwEhgPLkTGVgmBlMOZT/IALvrQmH14+F7P7MOgw"
        "fKA55kJ8Kc3weH+BYkjAIQBkgtywiGGFAX/Nkvs="
    ),
    "16 bits": (
        "eNoBggB9//8KiAAm4AcSCAQBANABSxiTjoODCQBTManDPQZLwwgRXiAYAOqORADZ2QEwW4WEpqczFAqiodzcubq5ygNwcQNMEAWh"
        "vdXZGhuMjDd4je33Gx3Nqnf4EtPuxsHRUrHAcXKCEMDUBAJsrEJEx8cCW5ybSxmhSWbZp5DUIiKRuETAWQ8EzTfR"
    ),
    "floats": (
        "eNoBngRh+/8KiAAmkIMECAQBAEECSzhqGNLb/4//ryChIACyHWOwYMw4R6q1W2WMMWfw5wKgicOvr68XFBR42tjY2ERHRwcyNaLE"
        "Ozc3RzwcbwkG3jb0X0h3P6Ry8arhcBMVaCeAMHqLwGCTt9sBZOshuQrTwcFG4lw/catC9iDPcmeF4Kfc0l4hSRa+Glsq2b0GJ+bD"
        "VXnj6HumXIdspKOjE+HT03QJoQ2K6DuakUyVb3Nz6+bmFuKELTWD8WjC0hYgsynAlYqLi83gdWMsMz8tpgUOUEK+OM8y0iV9gr1f"
        "Sj+GyH2FfikGBa7JSsedTz9JZt6Cf8MR7jdzOChcbXoBJwSACJ/AJXg2rWgW50pkCWcWUmEhI5z0gBtBRvQDXRnY6CRI0Nz7Zf1i"
        "ehxwidcgIQGkPoPm9GlMZPcBAvJk7xMUJCIiPLXY1lZj7VOie8UybbXljZdCkDWWcnhR/RKteGAnLrKamv4EGZj40foc/tY8i55H"
        "Shq+58GriWnliWrxtiDuZcjpxxJQTRaIJlWXX21Xa9cGT0i1utPikqCEeMPrRQnCSBZBpKUVOPAAHG4ZaugNCgp8fX0TDklTU3OF"
        "hcnHhxcWGxsLjzgDGthQP+zry0dyCLl7dIXl+ipXohlo6cPIAfMj1MyAUfoLqABSIBEYhfnjpRcAeVh9t6qYbhLx3NJGeKJPKQbi"
        "+ffFf02E79rZ2fDKAUqqSKrT8wZfkLW4uAYHBwlnKCjo0W8aGsdZGwvyfq0oCHmKJnlPqZEt/BktuRtPkXKTnHTo1I9c8ej8v3kN"
        "Q+BpEwnNvMcAVq0cgRTXAmjq10GYRruPBSCpMT6z/qcOC8TmDa6FZV8DioQmwE1LO2R6h45c/xENn56bmZm4m0AQjNMrVCAT0AHQ"
        "xmW79AYHB8AGAACAtGAKlVXuunu7inJeS0mHYNvdc0KKRT5sr7uRlmqy0hcVRNFnKPZJyIDCKIInLn185cpD7EvF7Qa5AuZVEM2M"
        "9ShkZc4UCFffoeEkk8J8i7eHq4Dw9VOMyhmZnBFnxYqRFx4EMQ+R1LBXGUz97D4qkB/Pc6kO/3KxkKW9GxYW+uDgjJSU9D/T7OxM"
        "N0ECFsi/vw93YBgkRFqotuQ0u60DRb5xF+XHOKXXFAfIoRJeigPbsDraKcW3QnrxHiR3yqzojcZz6OeBXqsMlSvDHBgwH8VSAIIW"
        "4uEKHoHh4Brn2jBHdpCQsJ+fXxl2JSUlDAxTmTpn75uKPSP17LwGRkhIwFv9p6socxsTp405DC8vr7DPz/f6/hTmy8MjgrFbisVp"
        "21fJpo2yGCq4eh9N5uL+znmAiAj5txn64XUducVOLkjsQ7SA+ona6PvT2RoshHR+bGYugXoHt7viI5WWqk9Y9Wg6d4WLJbQsLcbu"
        "7tz0OgICAgE+oowKxMhLXUoHKKzbuZeYmEBBQQx8ICAg4OTLTqx/sdxZZ3kTLKmHNl9AmhLgC87qVDiQyVCy4gE3dHd4uN3Vyuyd"
        "BUcqVqMXDyRWfNVIeCBHiPSqlfPaWgxItyXHKGwZgX5m878pEMQlN/ytBvO1Sv1AqOpa1fOw4JkAl9LYxP0BAWXuMYQ="
    ),
    "display p3": (
        "eNoBXQCi//8KiAAmgIBMbgQIBAEANAFLGJOOg4UpMGIqJnWuvUAwAPO/VgCsHhNq1lMnLHdcDvGH+7iVLaLntTPSN5gXdcTg9DaD"
        "Vr4iT3xn5wmjRvCkxeXTBGl/ksSmIKiYB2bmJ8g="
    ),
    "lossy": (
        "eNoB3gEh/v8KiAAmDAAVCABIB///qgIAUKEyyrjBy7meLz90WEzbuM7QVtsWljA22wuDhBkoFhuH6hb5qu1yW6MlGoqWuKPnl6f1"
        "m89JmdQ3c+mKHp9V8VarOzVYKxE3Y6ZUBE4JWUej4gx6GPsXHocDZOXxaZG8YhiLbACokAK7dPEuxos3vJnLm+EdeSQpSkcxMy9v"
        "BjCWlKCs7jAR0Px/kWI+d0QvmHmtfpms5AxcHMsbfs7+b63QpxuaMtzGKm8XY/lJGOOPE8GsYOTQ86deZFPAq5KEBA4mtDtm/eP8"
        "DwMNWr4ctb67lEnT1Io6kTK6GGlTphtOtyHjO3SREjQ8MxXjXhHn4RL8Parh+HGtk9MzbH0ozPY5PHpVVlYYoK+xoNRoatSoIbIA"
        "bglhnKcFTCTqk2mMSDHbMAxn24fQyIIsj5Sr67xQYI4e9XNQlLK7bibl4Nnyhd92tQXJqETaK7XYRCmIYMLxykA5BF/2CImvuata"
        "9thienAg7fUEQ6jCsln7OniEsNuMcf+Ch8bzWDtq1DfIahgtNlQFAVUSuLUhkNAhKDZj2cGYiy4JwuGSeo+Hdg4Be5LqJfJGHQLY"
        "YTafv6Fs6w6D3+H/OdkRuB6ydSnq0A4Ewa9pVhdAhaIJggG1L+RB"
    ),
    "depth and spot colour": (
        "eNr7z9XBoNbQxMDCAAUNLBwODIwMLYzeEpP7mps5GYINg58/ZRJmkGhYWp7A+ENOs/CdTfmP/+k+jevVRBgW3Shhnqomf9T7e4pn"
        "0gS33GSdMyKugbHPd/E4l199kaXzL80ox2byql8znQJk9xooHD/Ck8qlJejb8GcpEwBlSyyQ"
    ),
    "layers": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJpgEZBSCJ/1wdDGoNHhwsDAwmjN4Sk/uamzUNkozUPKfHKUg0tBwT"
        "a5gS8XGiWl3WCsO2FcJztG9r/n5z8l+R/oeYap89f/Ry3rIssO3eHVrtxbQ80aSrkcf80LGIlGP8HHogw+NBtjQwMDBysDDCjG8F"
        "Gq+lVrpur4MBw+f9YQxr5ISzrgWr65TH8H1s/71jqu6i51uNL5nPEC898uCLWXPYPiX/mvTnnIvdPiw5+vQyS2b9pCPLFFbMYAcA"
        "NHJVqA=="
    ),
    "animation": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFJZgIZBSCJ/1wdDGocsxgcfDhYGBlMGL0lJvc1t2oaJGmpla7b62DA"
        "8Hl/GMMaOeGsa8HqOuUxfB/bf++Yqrvo+VbjS+YzxEuPPPhi1hy2T8m/Jv0552K3D0uOPr3Mklk/6cgyhRUz2IHmx4MsamBgYORg"
        "YYUZ3ww03kjNc3qcgkRDyzGxhikRHyeq1WWtMGxbITxH+7bm7zcn/xXpf4ip9tnzRy/nLcsC2+7dodVeTMsTTboaecwPHYtIOcbP"
        "occAAJM/VhY="
    ),
    "a hidden frame": (
        "eNpjYGDg8YrwUeDlaudiYGAQSSupLMiqyFEAshmgNCeQzgFK8lQBGQUgif9cHQxqDR4cSgwMHFkcWQoMPAYVbFwrZJJDfGssegwl"
        "EnnkQo4+ED+8KbRWQLriLnPDv0gGNqbEJoZsFgXLtQyngs4XGgrsZWB5IcDCWc3IMIUrgItBgYGJpoiBxuYDQ2oYeKFTJVAnwoOJ"
        "YRSMgsEC2BwmaYjpqDCO0qP0KD1Kj9Kj9Cg9cmhgEyAe1PNoYGBg5GBhZDBh9JaY3NfcqmmQpKVWum6vgwHD5/1hDGvkhLOuBavr"
        "lMfwfWz/vWOq7qLnW40vmc8QLz3y4ItZc9g+Jf+a9Oeci90+LDn69DJLZv2kI8sUVsxgBwAZgsOH"
    ),
}
FILES = {name: zlib.decompress(base64.b64decode(packed)) for name, packed in _PACKED.items()}
